"""``make server``: an MLflow server that jobs on other machines reach, with a SQLite file of its own on this disk."""

import argparse
import errno
import os
import re
import shlex
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from ftx.environment import CHECKOUT, server_environment
from ftx.errors import ExitCode, UserError
from ftx.verb import verb

EVERYWHERE = ("0.0.0.0", "::")
LOOPBACK = re.compile(r"127\.|::1$|0\.0\.0\.0$|::$|localhost")
# Eight jobs that send all they have at once: two of them take three quarters of the time of one, four no less.
WORKERS = 2
# Where SQLite's locks, or its files' contents, are not to be relied on.
NETWORK_FILE_SYSTEMS = re.compile(r"nfs|lustre|gpfs|beegfs|ceph|cifs|smb|afs|panfs|wekafs|pvfs2|glusterfs|fuse\.")


@verb
def main(arguments: Sequence[str]) -> ExitCode:
    """Say which ``tracking.uri`` it is, and become the server."""
    given = _read_arguments(arguments)
    folder = given.folder.expanduser().absolute()
    check_port(given.host, given.port)
    make_folder(folder)
    sys.stdout.write(
        f"MLflow server: tracking.uri={address(given.host, given.port)} (whoever reaches it may read and change all of "
        f"it: {folder}; Ctrl-C ends it)\n"
    )
    sys.stdout.flush()
    command = server_command(given.host, given.port, folder, names_of_this_machine() + given.name)
    os.execve(sys.executable, command, server_environment())


def server_command(host: str, port: int, folder: Path, names: Sequence[str]) -> list[str]:
    """MLflow's server; it answers requests, and pages of its own, that call this machine by one of ``names``.

    Others come from pages that make a browser reach into the network that it stands in.
    """
    called = dict.fromkeys(_in_address(name) for name in [*names, host] if name not in EVERYWHERE)
    # A tunnel may begin at another port. The star makes a pattern of it, in which a bracket is written as [[].
    any_port = [f"{name.replace('[', '[[]')}:*" for name in called]
    options = {
        "--host": host,
        "--port": str(port),
        "--workers": str(WORKERS),
        "--backend-store-uri": f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination": (folder / "artifacts").as_uri(),
        "--allowed-hosts": ",".join([*called, *any_port]),
        "--cors-allowed-origins": ",".join(f"http://{name}{end}" for name in called for end in ("", f":{port}")),
        "--uvicorn-opts": shlex.join(["--log-level", "warning"]),
    }
    return [sys.executable, "-m", "mlflow", "server", "--serve-artifacts", *sum(options.items(), ())]


def address(host: str, port: int) -> str:
    """What other machines call the server that listens on ``host``."""
    return f"http://{_in_address(name_for_others() if host in EVERYWHERE else host)}:{port}"


def name_for_others() -> str:
    """This machine's name, unless that means the machine itself, as in many an /etc/hosts; then an address of it."""
    name = socket.gethostname()
    try:
        found = socket.gethostbyname(name)
    except OSError:
        found = "127.0.0.1"
    return name if not LOOPBACK.match(found) else _outward_address() or name


def names_of_this_machine() -> list[str]:
    """Its names and addresses, also those that only it understands."""
    names = [socket.gethostname(), socket.getfqdn(), "localhost"]
    addresses = [
        one.address
        for of_card in psutil.net_if_addrs().values()
        for one in of_card
        # Link-local IPv6 addresses have their card's name in them.
        if one.family in (socket.AF_INET, socket.AF_INET6) and "%" not in one.address
    ]
    return list(dict.fromkeys([*names, names[0].partition(".")[0], *addresses]))


def check_port(host: str, port: int) -> None:
    """Raise UserError for an address that cannot be listened on."""
    if not 0 < port < 65536:
        raise UserError(f"PORT={port}: must be between 1 and 65535")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"PORT={port}: another process listens there; say make server PORT={port + 1}") from error
        raise UserError(
            f"HOST={host} PORT={port}: cannot listen there ({error}); HOST has to be an address of this machine, "
            "0.0.0.0 is all of them"
        ) from error


def make_folder(folder: Path) -> None:
    """Raise UserError for one on another machine's disk: SQLite's locks do not hold there."""
    kind = file_system_of(folder)
    if NETWORK_FILE_SYSTEMS.match(kind):
        raise UserError(
            f"DIR={folder}: is on a network file system ({kind}), where SQLite is not safe; name a folder on a disk of "
            "this machine: make server DIR=/var/tmp/mlflow"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"DIR={folder}: cannot make this folder ({error.strerror}); name another one") from error


def file_system_of(folder: Path) -> str:
    """``ext4``, ``nfs4``, …: that of the mount nearest above."""
    real = folder.resolve()
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    return next((mounts[place] for place in [real, *real.parents] if place in mounts), "")


def _in_address(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _outward_address() -> str:
    """Of the network card that the way to elsewhere begins at; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def _read_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ftx.server", description=__doc__)
    parser.add_argument("--host", default="0.0.0.0", help="the address to listen on (default: every one it has)")
    parser.add_argument("--port", type=int, default=5000, help="(default: %(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=CHECKOUT / "mlflow-server", help="database and artifacts (default: %(default)s)"
    )
    parser.add_argument("--name", action="append", default=[], help="a further name that it is called by")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
