"""A SLURM cluster on this machine, to try ftx on: python tests/slurm up | env | down | run COMMAND."""

import argparse
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from cluster import Cluster
from machine import plain_environment, reason_it_cannot_run
from slurm_conf import Shape

ROOT = Path("/tmp/ftx-slurm")


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    arguments = _arguments()
    found = Cluster.at(arguments.root)
    if found is not None and not found.is_up():
        found.down()
        found = None
    if arguments.verb == "down":
        return _down(found)
    if arguments.verb == "env":
        return _say(found) if found is not None else _complain(f"no cluster in {arguments.root}")
    if reason := reason_it_cannot_run():
        return _complain(reason)
    if found is None and arguments.root.exists() and any(arguments.root.iterdir()):
        return _complain(f"--root {arguments.root} is not empty")
    if arguments.verb == "up":
        return _up(found or Cluster(arguments.root, Shape(nodes=arguments.nodes)))
    if found is not None:
        return _complain(f"--root {arguments.root} has a cluster already; end it with down")
    with Cluster(arguments.root, Shape(nodes=arguments.nodes)) as cluster:
        return subprocess.run(arguments.command, env=plain_environment() | cluster.environment, check=False).returncode


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/slurm", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help=f"the cluster's folder, by default {ROOT}")
    parser.add_argument("--nodes", type=int, default=Shape.nodes, help=f"how many, by default {Shape.nodes}")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="bring it up, or what has died of it, and print what env prints")
    verbs.add_parser("env", help='what a shell has to know: eval "$(python tests/slurm env)"')
    verbs.add_parser("down", help="end it, with all jobs, and remove its folder")
    run = verbs.add_parser("run", help="bring it up for as long as a command takes")
    run.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if arguments.verb == "run" and not arguments.command:
        parser.error("run what?")
    return arguments


def _up(cluster: Cluster) -> int:
    if cluster.is_up():
        for node in cluster.nodes:
            cluster.power_on(node)
    else:
        cluster.up()
    return _say(cluster)


def _down(cluster: Cluster | None) -> int:
    if cluster is not None:
        cluster.down()
    return 0


def _say(cluster: Cluster) -> int:
    for name, value in cluster.environment.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _complain(reason: str) -> int:
    print(reason, file=sys.stderr)
    return 2


sys.exit(main())
