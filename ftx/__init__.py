"""ftx: fine-tuning experiments, composed in one line, tracked, scored and reported.

>>> from ftx import compose, evaluate, train
>>> folder = train(compose("schedule.epochs=1"))
>>> folder.read_scores()
>>> evaluate(folder, "evaluation.tasks=[loss]")
"""

from typing import TYPE_CHECKING, Any

from ftx.environment import set_library_defaults
from ftx.quiet import silence_libraries

if TYPE_CHECKING:
    from ftx.config.compose import compose

__all__ = ["compose", "evaluate", "train"]

set_library_defaults()
silence_libraries()


def __getattr__(name: str) -> Any:
    """``compose``, ``train`` and ``evaluate``, imported when they are asked for: ``import ftx`` alone costs nothing."""
    if name == "compose":
        from ftx.config.compose import compose

        return compose
    if name == "train":
        from importlib import import_module

        return import_module("ftx.train")
    if name == "evaluate":
        from importlib import import_module

        return import_module("ftx.evaluate")
    raise AttributeError(f"module 'ftx' has no attribute '{name}'")
