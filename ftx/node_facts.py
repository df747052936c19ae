"""What each node of an allocation is like, and which of them is not as it has to be."""

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ftx.agreement import Fault
from ftx.config.schema import RunConfig
from ftx.data.sources import held_out_source, is_file, sources_of, word_of
from ftx.environment import CHECKOUT
from ftx.provenance import installed_packages

POLL_SECONDS = 0.2
DIFFERENCES_TOLD = 3


@dataclass(frozen=True)
class NodeFacts:
    """As the first rank on it sees it. ``absent``: paths of the run that are not there, as the words that name them."""

    sees_the_run: bool
    absent: list[str]
    gpus: list[str]
    versions: dict[str, str]
    sources: dict[str, str]


def look_around(run: RunConfig, written: Path, seconds: float) -> NodeFacts:
    """``written`` is a file that rank 0 wrote in the run's folder; a file server may take ``seconds`` to show it."""
    paths = paths_of(run)
    on_gpus = run.hardware.device == "cuda"
    facts = NodeFacts(
        sees_the_run=_appears(written, seconds),
        absent=[f"{word}={path}" for word, path in paths.items() if not path.exists()],
        gpus=[torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())] if on_gpus else [],
        versions={"Python": sys.version.split()[0], **installed_packages()},
        sources=source_hashes(),
    )
    return facts


def paths_of(run: RunConfig) -> dict[str, Path]:
    """What a run reads besides its own folder, by the key that says where it is."""
    sources = {word_of(name): source for name, source in sources_of(run.data).items()}
    if held_out := held_out_source(run.data):
        sources["data.holdout_path" if run.data.holdout_path else "data.path"] = held_out
    paths = {word: Path(source.path) for word, source in sources.items() if is_file(source)}
    # A composed run's folders are absolute, names on the hub are not.
    if run.model.weights != "random" and Path(str(run.model.name)).is_absolute():
        paths["model.name"] = Path(str(run.model.name))
    return paths


def source_hashes() -> dict[str, str]:
    """Of the code that this process runs, by file."""
    files = sorted(file for folder in ("ftx", "launchers") for file in (CHECKOUT / folder).rglob("*.py"))
    return {str(file.relative_to(CHECKOUT)): hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in files}


def fault_among(nodes: Mapping[int, NodeFacts], names: Mapping[int, str], run: RunConfig) -> Fault | None:
    """The first thing that is wrong; ``nodes`` and their ``names`` by the rank that looked."""
    blind = tuple(rank for rank, node in nodes.items() if not node.sees_the_run)
    if blind:
        return Fault(blind, f"does not see what {names[0]} writes to run_root={run.run_root}")
    return _absent(nodes) or _other_gpus(nodes, run) or _other_software(nodes, names)


def _absent(nodes: Mapping[int, NodeFacts]) -> Fault | None:
    """What no node has is not a node's fault."""
    for word in dict.fromkeys(word for node in nodes.values() for word in node.absent):
        without = tuple(rank for rank, node in nodes.items() if word in node.absent)
        if len(without) == len(nodes):
            return Fault(without, f"{word} is not there; put it where the nodes of the cluster see it", is_mistake=True)
        return Fault(without, f"{word} is not there, other nodes have it")
    return None


def _other_gpus(nodes: Mapping[int, NodeFacts], run: RunConfig) -> Fault | None:
    wanted, name = run.hardware.gpus_per_node, run.hardware.gpu
    for rank, node in nodes.items():
        if len(node.gpus) < wanted:
            return Fault((rank,), f"has {len(node.gpus)} GPU, hardware.gpus_per_node={wanted}")
        others = [gpu for gpu in node.gpus if name and name not in gpu]
        if others:
            text = f"has {others[0]}, hardware.gpu={name}: choose nodes that have them with launcher.partition or "
            return Fault((rank,), f"{text}launcher.constraint, or hardware=… of these", is_mistake=True)
    return None


def _other_software(nodes: Mapping[int, NodeFacts], names: Mapping[int, str]) -> Fault | None:
    """Measured by what most nodes have, and rank 0's where none has more."""
    kinds = {rank: tuple(sorted([*node.versions.items(), *node.sources.items()])) for rank, node in nodes.items()}
    usual, _ = Counter(kinds.values()).most_common(1)[0]
    reference = next(rank for rank, kind in kinds.items() if kind == usual)
    for rank, node in nodes.items():
        differences = _differences(node, nodes[reference], names[reference])
        if differences:
            more = f" and {len(differences) - DIFFERENCES_TOLD} more" if len(differences) > DIFFERENCES_TOLD else ""
            return Fault((rank,), f"has other software: {', '.join(differences[:DIFFERENCES_TOLD])}{more}")
    return None


def _differences(node: NodeFacts, reference: NodeFacts, name: str) -> list[str]:
    packages = [
        f"{package} {node.versions.get(package, 'missing')} ({name}: {reference.versions.get(package, 'missing')})"
        for package in reference.versions | node.versions
        if node.versions.get(package) != reference.versions.get(package)
    ]
    files = [
        f"another {file} than {name}"
        for file in reference.sources | node.sources
        if node.sources.get(file) != reference.sources.get(file)
    ]
    return packages + files


def _appears(file: Path, seconds: float) -> bool:
    began = time.monotonic()
    while not _is_there(file):
        if time.monotonic() - began > seconds:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _is_there(file: Path) -> bool:
    """By opening it: a file server's client may answer other questions from what it remembers."""
    try:
        file.open("rb").close()
    except OSError:
        return False
    return True
