"""One run as SLURM starts it, again and again, without SLURM: its tasks with the environment that they would have."""

import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from verb_process import Verb, start_task

from ftx.config.compose import compose_all
from ftx.run_folder import RunFolder
from launchers.folders import describe_on_disk, locate

if TYPE_CHECKING:
    from conftest import Place

JOB_ID = "812"


@dataclass(frozen=True)
class Job:
    """A job whose run is described on disk."""

    place: "Place"
    folder: RunFolder
    tasks: list[Verb] = field(default_factory=list)

    def start(self, attempt: int, *, children: bool = False, **environment: object) -> Verb:
        """The only task of the job's n-th start, or one of several that ``environment`` tells apart."""
        here = {"SLURM_JOB_ID": JOB_ID, "SLURM_RESTART_COUNT": attempt}
        into = self.place.path / "said"
        self.tasks.append(start_task(self.folder.path, into=into, children=children, **here, **environment))
        return self.tasks[-1]

    def start_ranks(self, attempt: int, count: int = 2) -> list[Verb]:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        meet_at = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count}
        return [self.start(attempt, RANK=rank, LOCAL_RANK=rank, **meet_at) for rank in range(count)]


def submitted(place: "Place", *words: str) -> Job:
    """What a launcher leaves behind: the run's folder, described."""
    given = [str(word) for word in place.words(*words, "launcher=slurm")]
    (composed,) = compose_all(given, multirun=False, config_dir=None).runs
    folder = locate(composed)
    describe_on_disk(composed, folder)
    return Job(place, folder)
