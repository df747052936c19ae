"""Whether a check of an export fits into memory: known before anything is made, so that nothing is killed after it."""

from pathlib import Path

import torch

from ftx.config.schema import RunConfig
from ftx.disk import in_words
from ftx.errors import UserError
from ftx.exports.apart import WAY_OUT
from ftx.exports.check_samples import LAST, LONGEST, SAMPLES
from ftx.models import shapes_of_base
from ftx.precision import starting_type

# Logits in 32 bits of the base, of the trained model before and after rounding, and of the export.
SETS_OF_LOGITS, BYTES_OF_LOGIT = 4, 4
# The interpreter with its libraries, and what a forward pass over the long text takes besides the weights.
BESIDES = 1e9


def computing_type(run: RunConfig) -> torch.dtype:
    """What a check computes in here: 32 bits, or where that does not fit, the type that the weights are held in.

    Raises UserError where neither fits.
    """
    there, weights, logits = available_bytes(), *_numbers(run)
    stored = starting_type(run)
    for dtype in dict.fromkeys((torch.float32, stored)):
        if there is None or bytes_needed(weights, logits, dtype) <= there:
            return dtype
    raise UserError(
        f"export.check=true: the check holds the model in memory, about "
        f"{in_words(bytes_needed(weights, logits, stored))}, and {in_words(there or 0)} are free here; export on a "
        f"machine with more, or {WAY_OUT}"
    )


def bytes_needed(weights: int, logits: int, dtype: torch.dtype) -> float:
    """For so many numbers of each."""
    return weights * dtype.itemsize + logits * BYTES_OF_LOGIT + BESIDES


def available_bytes(root: Path = Path("/")) -> int | None:
    """What may be taken before somebody is killed: of the machine's memory, and of this process's control group's.

    None where the system does not say.
    """
    found = [one for one in (_of_machine(root), *_of_groups(root)) if one is not None]
    return min(found, default=None)


def _numbers(run: RunConfig) -> tuple[int, int]:
    """How many weights the model has, and how many logits are kept."""
    with torch.device("meta"):
        model = shapes_of_base(run)
    vocabulary = model.config.get_text_config().vocab_size
    return sum(one.numel() for one in model.parameters()), SETS_OF_LOGITS * (SAMPLES * LONGEST + LAST) * vocabulary


def _of_machine(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _of_groups(root: Path) -> list[int | None]:
    """Of version 2 and 1, of the group and of those that it is in; what files are cached counts as free."""
    found = []
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        version_2 = not controllers
        if not version_2 and "memory" not in controllers.split(","):
            continue
        mounted = root / "sys/fs/cgroup" / ("" if version_2 else "memory")
        limit, used = (
            ("memory.max", "memory.current") if version_2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        group = mounted / path.strip("/")
        for one in (group, *group.parents):
            found.append(_free_in(one / limit, one / used, one / "memory.stat"))
            if one == mounted:
                break
    return found


def _free_in(limit: Path, used: Path, stat: Path) -> int | None:
    try:
        most, now = limit.read_text(encoding="utf-8").strip(), int(used.read_text(encoding="utf-8"))
        cached = dict(line.split() for line in stat.read_text(encoding="utf-8").splitlines()).get("inactive_file", "0")
    except (OSError, ValueError):
        return None
    return None if most == "max" else max(0, int(most) - now + int(cached))
