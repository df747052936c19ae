"""Model-written code, run where it can do no harm: ``open_sandbox`` says how, ``Sandbox.start`` and ``.run`` do it.

Three things hold the code: what it sees (``bubblewrap``), what it may ask the kernel for (``seccomp``), and how much
it may take (the kernel's limits for each process, and a supervisor in ``process`` for all of them together).
"""

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ftx.config.evaluation_schema import SandboxConfig
from ftx.errors import UserError
from ftx.sandbox.bubblewrap import SCRATCH, bubblewrap_launch, inside_environment, resource_limits
from ftx.sandbox.process import Launch, Outcome, SandboxedProcess

__all__ = ["Outcome", "Sandbox", "SandboxedProcess", "open_sandbox", "why_no_sandbox"]

# How long anything that is found out at the start may take.
_CHECK_SECONDS = 30.0


@dataclass(frozen=True)
class Sandbox:
    """Where code runs, and what it may take. ``confined=False``: as this user, with limits only."""

    limits: SandboxConfig = field(default_factory=SandboxConfig)
    confined: bool = True

    def start(self, command: Sequence[str], files: Mapping[str, Path] | None = None) -> SandboxedProcess:
        """Start a command in a scratch folder of its own; ``files``: name in its ``data/`` → what is read there."""
        folder = Path(tempfile.mkdtemp(prefix="ftx-sandbox-"))
        remove = partial(shutil.rmtree, folder, ignore_errors=True)
        try:
            if not self.confined:
                return SandboxedProcess.start(self._unconfined(command, files or {}, folder), self.limits, remove)
            folder.chmod(0o755)
            with bubblewrap_launch(command, files or {}, self.limits, folder) as launch:
                return SandboxedProcess.start(launch, self.limits, remove)
        except BaseException:
            remove()
            raise

    def run(
        self,
        command: Sequence[str],
        files: Mapping[str, Path] | None = None,
        *,
        stdin: bytes = b"",
        seconds: float | None = None,
    ) -> Outcome:
        """Run a command to its end, or to that of ``seconds`` (``limits.wall_seconds``)."""
        with self.start(command, files) as process:
            return process.wait(stdin, self.limits.wall_seconds if seconds is None else seconds)

    def describe(self) -> str:
        """What holds the code, in words."""
        if not self.confined:
            return "no sandbox (evaluation.unsafe_local=true): code that the model writes can do what this user can"
        return "bubblewrap namespaces; memory, processor time and files counted by a supervisor"

    def _unconfined(self, command: Sequence[str], files: Mapping[str, Path], folder: Path) -> Launch:
        (folder / ".tmp").mkdir()
        for name, outside in files.items():
            target = folder / "data" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if outside.is_dir() else shutil.copy)(outside, target)
        limits = resource_limits(self.limits) if shutil.which("prlimit") else []
        return Launch((*limits, *command), inside_environment(str(folder)), folder)


def open_sandbox(limits: SandboxConfig, *, unsafe_local: bool = False) -> Sandbox:
    """The sandbox that works on this machine; raises UserError where none does and ``unsafe_local`` is not said."""
    if unsafe_local:
        return Sandbox(limits, confined=False)
    if why := why_no_sandbox(limits):
        raise UserError(
            f"evaluation.tasks: code that a model writes is not run without a sandbox, and here {why}; install "
            "bubblewrap 0.8 or newer where user namespaces are allowed, or say evaluation.unsafe_local=true"
        )
    return Sandbox(limits)


def why_no_sandbox(limits: SandboxConfig | None = None) -> str:
    """Why bubblewrap does not hold code here, found out by trying; empty where it does."""
    if missing := [name for name in ("bwrap", "choom", "prlimit") if not shutil.which(name)]:
        return f"there is no {missing[0]}"
    try:
        seen = Sandbox(limits or SandboxConfig()).run([sys.executable, "-I", "-S", "-c", _LOOK], seconds=_CHECK_SECONDS)
    except (OSError, KeyError) as error:
        return f"bubblewrap cannot be started ({error})"
    if seen.returncode:
        said = (seen.ended_by or seen.stderr.strip() or f"exit code {seen.returncode}").splitlines()[-1]
        return f"bubblewrap does not work ({said})"
    return ""


# What the code of the first sandbox has to find true of it.
_LOOK = f"""
import os
assert os.getuid() == 1000, "the user inside is not its own"
assert sorted(os.listdir({SCRATCH!r})) == [".tmp", "data"], "the scratch folder is not empty"
assert [line.split(":")[0].strip() for line in open("/proc/net/dev")][2:] == ["lo"], "there is a network"
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
assert int(status["CapEff"], 16) == 0 and int(status["CapBnd"], 16) == 0, "it has capabilities"
assert status["Seccomp"].strip() == "2", "no seccomp filter is at work"
try:
    open("/usr/ftx-sandbox-check", "w")
except OSError:
    pass
else:
    raise AssertionError("the system can be written to")
"""
