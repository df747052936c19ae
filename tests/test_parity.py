"""The same run however its work is cut: the same losses and weights, whoever computes what and after which breaks.

A row of the table says how a run is computed; each is compared with the row that its kind begins with.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
from rank_processes import Part, compute
from run_records import rows_of
from safetensors.torch import load_file

from ftx.config.compose import compose
from ftx.run_folder import RunFolder

RELATIVE_LOSS, RELATIVE_NORM, ABSOLUTE_WEIGHT = 1e-5, 1e-4, 1e-4

# Five steps an epoch, the last one short: of two ranks with micro-batches of one row, one has nothing to do in the end.
RUN = (
    "data.limit=37",
    "data.holdout=0.005",
    "data.packing=false",
    "model.architecture.vocabulary_size=1024",
    "model.architecture.hidden_size=32",
    "model.architecture.head_dim=8",
    "model.architecture.intermediate_size=64",
    "model.architecture.layers=2",
    "schedule.epochs=2",
    "schedule.global_batch_size=8",
    "schedule.log_every=1",
    "schedule.learning_rate=1e-3",
    "evaluation.tasks=[]",
    "tracking.offline=true",
    "hardware.micro_batch=2",
)
LORA = ("method=lora", "method.lora.rank=4", "schedule.learning_rate=1e-2")
QLORA = (
    "method=qlora",
    *LORA[1:],
    "method.optimizer=adamw_torch_fused",
    "hardware.precision=fp32",
    "model.architecture.hidden_size=64",
    "model.architecture.head_dim=16",
)
NEFTUNE = ("method.neftune_alpha=5",)
PACKED = ("data.packing=true", "data.packing_scope=global_batch")


@dataclass(frozen=True)
class Start:
    """One start of a run: what it is computed on, and after how many rows of metrics it is stopped."""

    hardware: dict[str, Any]
    stop_after: int = 0

    @property
    def ranks(self) -> int:
        return self.hardware["processes_per_node"]


@dataclass(frozen=True)
class Row:
    """A run as one or more starts, each of which goes on where the one before was stopped."""

    name: str
    starts: tuple[Start, ...]
    kind: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def one(stop: int = 0, **hardware: Any) -> Start:
    return Start({"processes_per_node": 1, **hardware}, stop)


def two(strategy: str, stop: int = 0, **hardware: Any) -> Start:
    return Start({"processes_per_node": 2, "strategy": strategy, **hardware}, stop)


# A row of metrics comes before the first step, so that the fourth one is of step 3: the stop is in step 4, mid-epoch.
MID, LATER = 4, 9
ROWS = [
    Row("one process", (one(),)),
    Row("accumulation 8", (one(micro_batch=1),)),
    Row("accumulation 1", (one(micro_batch=8),)),
    Row("packed", (one(),), words=PACKED),
    Row("stopped", (one(stop=MID), one())),
    Row("activation checkpointing", (one(activation_checkpointing=True),)),
    Row("activation checkpointing, zero2", (two("zero2", activation_checkpointing=True),)),
    Row("ddp", (two("ddp"),)),
    Row("ddp, stopped", (two("ddp", stop=MID), two("ddp"))),
    Row("1 to 2, ddp", (one(stop=MID), two("ddp"))),
    Row("2 to 1, ddp", (two("ddp", stop=MID), one())),
    Row("zero1", (two("zero1"),)),
    Row("zero2", (two("zero2"),)),
    Row("zero2, accumulation 4", (two("zero2", micro_batch=1),)),
    Row("zero2, packed", (two("zero2"),), words=PACKED),
    Row("zero2, stopped", (two("zero2", stop=MID), two("zero2"))),
    Row("1 to 2, zero2", (one(stop=MID), two("zero2"))),
    Row("2 to 1, zero2", (two("zero2", stop=MID), one())),
    Row("zero3", (two("zero3", micro_batch=1),)),
    Row("zero3, stopped, then 1", (two("zero3", stop=MID), two("zero3", stop=LATER - MID), one())),
    Row("zero1 to zero3 to ddp", (two("zero1", stop=MID), two("zero3", stop=LATER - MID), two("ddp"))),
    Row("fsdp", (two("fsdp", micro_batch=1),)),
    Row("fsdp, stopped, then zero2", (two("fsdp", stop=MID), two("fsdp", stop=LATER - MID), two("zero2"))),
    Row("1 to 2, fsdp", (one(stop=MID), two("fsdp"))),
    Row("lora: one process", (one(),), LORA),
    Row("lora: ddp", (two("ddp"),), LORA),
    Row("lora: zero2, stopped, then 1", (two("zero2", stop=MID), one()), LORA),
    Row("lora: zero3", (two("zero3"),), LORA),
    Row("lora: 1 to 2, zero3 to fsdp", (one(stop=MID), two("zero3", stop=LATER - MID), two("fsdp")), LORA),
    Row("qlora: one process", (one(),), QLORA),
    Row("qlora: zero2", (two("zero2"),), QLORA),
    Row("qlora: ddp, stopped, then 1", (two("ddp", stop=MID), one()), QLORA),
    Row("neftune: one process", (one(),), NEFTUNE),
    Row("neftune: packed, zero2, stopped, then 1", (two("zero2", stop=MID), one()), NEFTUNE, PACKED),
]
FIRST = {row.kind: row for row in reversed(ROWS)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, RunFolder]:
    """Every row's run: the first starts of all rows, then the second ones and so on, each number of ranks at once."""
    place = tmp_path_factory.mktemp("parity")
    for turn in range(max(len(row.starts) for row in ROWS)):
        for ranks in (1, 2):
            now = [row for row in ROWS if turn < len(row.starts) and row.starts[turn].ranks == ranks]
            if now:
                compute([part(place, row, turn) for row in now], ranks, place)
    return {row.name: RunFolder(place / row.name) for row in ROWS}


def part(place, row, turn):
    start, run = row.starts[turn], composed(place, (*row.kind, *row.words))
    return Part(place / row.name, replace(run, hardware=replace(run.hardware, **start.hardware)), start.stop_after)


@cache
def composed(place, words):
    words = {word.split("=")[0]: word for word in (*RUN, f"run_root={place}", f"data.cache={place / 'cache'}", *words)}
    return compose(*words.values())


def weights_of(folder):
    (file,) = folder.model.glob("*.safetensors")
    return load_file(file)


@pytest.mark.long
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_same_whoever_computes_it(folders, row):
    ours, reference = folders[row.name], folders[FIRST[row.kind].name]
    rows, expected = rows_of(ours), rows_of(reference)
    assert len(rows) == 13
    for name in ("step", "epoch", "learning_rate", "total_tokens", "supervised_tokens"):
        assert [one.get(name) for one in rows] == [one.get(name) for one in expected], name
    for name, tolerance in (("train_loss", RELATIVE_LOSS), ("eval_loss", RELATIVE_LOSS), ("grad_norm", RELATIVE_NORM)):
        values = [one[name] for one in rows if name in one]
        assert values == pytest.approx([one[name] for one in expected if name in one], rel=tolerance, abs=0), name
    weights, others = weights_of(ours), weights_of(reference)
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        assert (tensor - others[name]).abs().max() <= ABSOLUTE_WEIGHT, name
    assert sorted(path.name for path in ours.checkpoints.glob(".*")) == []
