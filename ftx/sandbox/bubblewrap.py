"""The command line that runs another one inside bubblewrap's namespaces.

Inside there are: the system's and Python's files, to be read; the files of the benchmark, to be read; a scratch folder
and shared memory, both of limited size and gone with the sandbox; a /proc of its own processes. There is nothing else:
no network but a loopback of its own, no home, no environment, no capabilities, no further namespaces.
"""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ftx.config.evaluation_schema import SandboxConfig
from ftx.sandbox.process import Launch
from ftx.sandbox.seccomp import seccomp_program

SCRATCH = "/scratch"
DATA = f"{SCRATCH}/data"
# Whom nothing belongs to: what root starts is this user outside of the sandbox.
NOBODY = 65534
_INSIDE_ID = "1000"
_SHARED_MEMORY_MIB = 64
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives", "/etc/fonts", "/etc/mime.types")
_TOP_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")

# As root: show what root alone can reach (a Python in /root) to an unprivileged user, in a mount namespace of its own.
# Arguments: an empty folder, what to show there as 0, 1, 2 …, "--", the command.
_SHOWING = """
set -e
base=$1; shift
mount -t tmpfs -o mode=755 shown "$base"
number=0
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mkdir "$base/$number"; else : > "$base/$number"; fi
  mount --bind "$1" "$base/$number"
  number=$((number + 1)); shift
done
shift
exec "$@"
"""


def python_folders() -> tuple[Path, ...]:
    """Where this Python and its packages lie, outside of /usr."""
    folders = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent}
    outermost = [one for one in folders if not any(other in one.parents for other in folders)]
    return tuple(sorted(one for one in outermost if not one.is_relative_to("/usr")))


@contextmanager
def bubblewrap_launch(
    command: Sequence[str], files: Mapping[str, Path], limits: SandboxConfig, empty: Path
) -> Iterator[Launch]:
    """For as long as it takes to start it. ``files``: name in ``data/`` of the scratch folder → what is read there.

    ``empty``: a folder that root shows files under; nothing is written there.
    """
    shown = [(str(folder), folder) for folder in python_folders()]
    shown += [(f"{DATA}/{name}", outside.resolve()) for name, outside in files.items()]
    filter_fd = os.memfd_create("seccomp")
    try:
        os.write(filter_fd, seccomp_program())
        os.lseek(filter_fd, 0, os.SEEK_SET)
        if os.geteuid() == 0:
            sources = [str(outside) for _, outside in shown]
            prologue = [*_as_nobody(empty, sources)]
            shown = [(inside, empty / str(number)) for number, (inside, _) in enumerate(shown)]
        else:
            prologue = []
        # Outside already, so that they hold for bubblewrap's first process too, which the code inside might take over;
        # processes are counted by user, so that limit is set where the user is the sandbox's own.
        limited = [*resource_limits(limits), *_bwrap(shown, limits, filter_fd)]
        inside = ["choom", "-n", "1000", "--", "prlimit", f"--nproc={limits.processes}"]
        wrapped = [*prologue, *limited, "--", *inside, *command]
        # Of the environment out here too nothing but the path: /proc/1/environ shows what bubblewrap was started with.
        yield Launch(tuple(wrapped), {"PATH": os.defpath}, Path("/"), (filter_fd,), SCRATCH)
    finally:
        os.close(filter_fd)


def _as_nobody(empty: Path, sources: Sequence[str]) -> list[str]:
    return [
        *("unshare", "--mount", "--propagation", "private"),
        *("sh", "-c", _SHOWING, "sh", str(empty), *sources, "--"),
        *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"),
    ]


def _bwrap(shown: Sequence[tuple[str, Path]], limits: SandboxConfig, filter_fd: int) -> list[str]:
    return [
        shutil.which("bwrap") or "bwrap",
        *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup"),
        *("--disable-userns", "--uid", _INSIDE_ID, "--gid", _INSIDE_ID, "--hostname", "sandbox"),
        *("--new-session", "--die-with-parent", "--cap-drop", "ALL", "--seccomp", str(filter_fd)),
        *_system(),
        *("--proc", "/proc", "--dev", "/dev", "--size", str(_SHARED_MEMORY_MIB * 2**20), "--tmpfs", "/dev/shm"),
        *("--remount-ro", "/dev"),
        *("--size", str(limits.disk_mib * 2**20), "--tmpfs", SCRATCH),
        *("--dir", f"{SCRATCH}/.tmp", *_tmp([inside for inside, _ in shown]), "--tmpfs", DATA),
        *(word for inside, outside in shown for word in ("--ro-bind", str(outside), inside)),
        *("--remount-ro", DATA, "--remount-ro", "/", "--chdir", SCRATCH, "--clearenv"),
        *(word for name, value in inside_environment(SCRATCH).items() for word in ("--setenv", name, value)),
    ]


def _tmp(shown: Sequence[str]) -> tuple[str, ...]:
    """/tmp is a part of the scratch folder, unless Python itself lies there: then nothing else does."""
    is_taken = any(Path(inside).is_relative_to("/tmp") for inside in shown)
    return ("--dir", "/tmp") if is_taken else ("--symlink", f"{SCRATCH}/.tmp", "/tmp")


def _system() -> Iterator[str]:
    yield from ("--ro-bind", "/usr", "/usr")
    for name in _TOP_FOLDERS:
        folder = Path("/", name)
        if folder.is_symlink():
            yield from ("--symlink", str(folder.readlink()), str(folder))
        elif folder.is_dir():
            yield from ("--ro-bind", str(folder), str(folder))
    for file in _SYSTEM_FILES:
        yield from ("--ro-bind-try", file, file)


def resource_limits(limits: SandboxConfig) -> list[str]:
    """The command that sets the kernel's limits on each process by itself."""
    return [
        "prlimit",
        f"--as={int(limits.memory_gib * 2**30)}",
        f"--cpu={limits.cpu_seconds}",
        f"--fsize={limits.file_mib * 2**20}",
        *("--nofile=512", "--core=0", "--msgqueue=0", "--memlock=0", "--sigpending=1024"),
    ]


def inside_environment(home: str) -> dict[str, str]:
    """All of the environment that a command sees; one thread for each library, the processors are shared."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "HOME": home,
        "TMPDIR": f"{home}/.tmp",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLBACKEND": "Agg",
        # Each further arena takes 64 MiB of the address space, which is limited.
        "MALLOC_ARENA_MAX": "2",
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
    }
