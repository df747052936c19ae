"""Runs of a second or two, trained, scored and tracked in this process, to be published."""

from pathlib import Path

from tiny_training import SIZES, on, write_chats

from ftx.config.compose import ComposedRun, compose
from ftx.config.schema import RunConfig
from ftx.errors import ExitCode
from ftx.job import run_job
from ftx.run_folder import RunFolder
from launchers.local import describe_on_disk, locate


def words_for(place, *words: str) -> list[str]:
    """Of a run in ``place``, on conversations in a folder whose name nobody else is to know."""
    data = place.path / "private" / "customer"
    data.mkdir(parents=True, exist_ok=True)
    chats = data / "chats.jsonl"
    if not chats.exists():
        write_chats(data)
    model = [f"model.architecture.{name}={size}" for name, size in SIZES.items()]
    here = [f"run_root={place.runs}", f"tracking.uri={place.uri}", "hardware.threads=1"]
    settings = [word for word in on(chats) if not word.startswith("run_root=")]
    given = [] if any(word.startswith("model=") for word in words) else model
    return [*given, *settings, *here, *words]


def finished(place, *words: str) -> tuple[RunFolder, RunConfig]:
    """The folder of the run and the run itself."""
    given = words_for(place, *words)
    described = ComposedRun(compose(*given), tuple(given), {})
    folder = locate(described)
    describe_on_disk(described, folder)
    assert run_job(folder) == ExitCode.FINISHED, folder.read_status().reason
    return folder, described.run


def files_of(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]
