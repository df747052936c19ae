"""The comparison of an export with the trained model, as whoever makes the export asks for it."""

from pathlib import Path

from ftx.config.schema import RunConfig
from ftx.exports.apart import ask_apart
from ftx.exports.check_memory import computing_type
from ftx.exports.check_samples import prepared_set
from ftx.exports.comparison import Findings
from ftx.run_folder import RunFolder


def check_can_compare(folder: RunFolder, run: RunConfig) -> None:
    """Raise UserError for what a check would fail of after hours of merging: memory, and what was trained on."""
    computing_type(run)
    prepared_set(folder, run)


def compare_in_a_process(folder: RunFolder, export: str, made: Path) -> Findings:
    """Raises as ``ask_apart`` does."""
    return Findings.from_json(ask_apart("ftx.exports.check_process", [str(folder.path), export, str(made)], export))
