"""The cluster that these tests run on: one for the session, as new for each test."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path

import pytest
from cluster import Cluster
from machine import missing_programs, reason_it_cannot_run
from slurm_conf import Shape
from slurm_runs import DEADLINE_SECONDS, WORDS, Site
from verb_process import start

from ftx.run_folder import RunFolder

SMALL_DISK = 32
WHY_SKIPPED = pytest.StashKey[str]()


def pytest_addoption(parser):
    parser.addoption("--require-slurm", action="store_true", help="a missing SLURM program is a failure, not a skip")


def pytest_terminal_summary(terminalreporter, config):
    """One line, whatever number of tests it is about."""
    if reason := config.stash.get(WHY_SKIPPED, None):
        terminalreporter.write_line(f"skipped what needs a SLURM cluster: {reason}")


@pytest.fixture(scope="session")
def new_cluster(request) -> Callable[[Shape], AbstractContextManager[Cluster]]:
    """Makes clusters besides the session's, of other shapes; each ends with its ``with``."""
    if request.config.getoption("--require-slurm", default=False) and (missing := missing_programs()):
        pytest.fail(missing, pytrace=False)
    if reason := reason_it_cannot_run():
        request.config.stash[WHY_SKIPPED] = reason
        pytest.skip(reason)

    @contextmanager
    def make(shape: Shape) -> Iterator[Cluster]:
        with Cluster(Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp")), shape) as cluster:
            yield cluster

    return make


@pytest.fixture(scope="session")
def cluster(new_cluster) -> Iterator[Cluster]:
    with new_cluster(Shape(small_disk=SMALL_DISK)) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def settled(request) -> Iterator[None]:
    """Whatever a test does to the cluster, the next one finds it as new; jobs of wider fixtures end with it too."""
    cluster = request.getfixturevalue("cluster") if "cluster" in request.fixturenames else None
    yield
    if cluster is not None:
        cluster.settle()


@pytest.fixture
def site(cluster, new_place) -> Site:
    """An empty run_root, with MLflow in a SQLite file: a run alone may."""
    place = new_place()
    return Site(cluster, place.runs, place.cache, place.uri)


@pytest.fixture(scope="session")
def undisturbed(new_place) -> Callable[..., RunFolder]:
    """The same run by one process here, with other words where a test adds some that change the result."""
    place, numbers = new_place(), count()

    @cache
    def run(*words: str) -> RunFolder:
        runs = place.runs / str(next(numbers))
        here = (f"run_root={runs}", f"tracking.uri={place.uri}", f"data.cache={place.cache}")
        verb = start("train", *WORDS, *here, *words, into=place.path / "said")
        verb.process.join(DEADLINE_SECONDS)
        ended = verb.ended()
        assert ended.code == 0, ended
        (file,) = runs.glob("*/run.yaml")
        return RunFolder(file.parent)

    return run


@pytest.fixture
def small_site(cluster, site) -> Site:
    """Its runs are on a disk that a test can fill."""
    return replace(site, runs=cluster.small_disk / "runs")


@pytest.fixture
def nothing_starts(cluster):
    """Jobs stay in the queue until the test lets them go."""
    cluster.scontrol("update", "PartitionName=debug", "State=DOWN")
    yield lambda: cluster.scontrol("update", "PartitionName=debug", "State=UP")
    cluster.scontrol("update", "PartitionName=debug", "State=UP")
