"""ftx: fine-tuning experiments, composed in one line, tracked, scored and reported."""

from ftx.environment import set_library_defaults

set_library_defaults()
