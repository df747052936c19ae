"""What is told to the libraries for each strategy, and what each can go on from."""

import shutil

import pytest

from ftx.config.compose import compose
from ftx.config.parallel import strategy_of
from ftx.data.order import MicroBatches, OfEveryRank
from ftx.errors import UserError
from ftx.resume import Origin, reads_as_it_is
from ftx.strategies import deepspeed_config, strategy_arguments

TWO = ("hardware.processes_per_node=2", "schedule.global_batch_size=8")


def test_zero2_is_what_several_processes_do_unless_told_otherwise():
    assert strategy_of(compose()) == "one"
    assert strategy_of(compose(*TWO)) == "zero2"
    assert strategy_of(compose(*TWO, "hardware.strategy=ddp")) == "ddp"


def test_deepspeed_config():
    described = deepspeed_config(compose(*TWO, "method.max_grad_norm=0.5", "hardware.precision=bf16"), accumulation=4)
    assert described["zero_optimization"]["stage"] == 2
    assert (described["bf16"]["enabled"], described["fp16"]["enabled"]) == (True, False)
    assert (described["gradient_accumulation_steps"], described["gradient_clipping"]) == (4, 0.5)
    gathered = deepspeed_config(compose(*TWO, "hardware.strategy=zero3"), accumulation=1)["zero_optimization"]
    assert gathered["stage3_gather_16bit_weights_on_model_save"]


@pytest.mark.parametrize(("strategy", "told"), [("ddp", "ddp_find_unused_parameters"), ("fsdp", "fsdp_config")])
def test_other_strategies_leave_deepspeed_alone(strategy, told):
    arguments = strategy_arguments(compose(*TWO, f"hardware.strategy={strategy}"), accumulation=1)
    assert told in arguments
    assert "deepspeed" not in arguments
    assert strategy_arguments(compose(), accumulation=1) == {}


@pytest.mark.parametrize(
    ("words", "origin", "as_it_is"),
    [
        ((), Origin("ddp", 4), True),
        ((*TWO, "hardware.strategy=ddp"), Origin("one", 1), True),
        ((*TWO, "hardware.strategy=ddp"), Origin("zero1", 2), False),
        (TWO, Origin("zero2", 2), True),
        (TWO, Origin("zero2", 4), False),
        (TWO, Origin("zero3", 2), False),
        ((), Origin("zero2", 2), False),
        ((*TWO, "hardware.strategy=fsdp"), Origin("fsdp", 8), True),
        ((*TWO, "hardware.strategy=fsdp"), Origin("ddp", 2), False),
    ],
)
def test_what_can_be_read_as_it_is(words, origin, as_it_is):
    assert reads_as_it_is(compose(*words), origin) == as_it_is


def test_no_space_for_a_conversion(tmp_path, monkeypatch):
    from ftx.resume import make_readable
    from ftx.run_folder import RunFolder
    from ftx.writing import write_json

    checkpoint = tmp_path / "checkpoints" / "step-4"
    (checkpoint / "global_step4").mkdir(parents=True)
    (checkpoint / "global_step4" / "zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(bytes(1 << 20))
    write_json(checkpoint / "written_by.json", {"strategy": "zero2", "ranks": 2, "parameters": []})
    free = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(
        UserError, match=r"takes 2\.0 MiB .*1\.0 MiB are free.* hardware\.processes_per_node=2 hardware\.strategy=zero2"
    ):
        make_readable(RunFolder(tmp_path), compose())


def test_the_micro_batches_of_a_rank_are_where_accelerate_looks_for_them():
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler, SequentialSampler

    class Mine(MicroBatches):
        def __init__(self, rank):
            self.rank = rank

        def __len__(self):
            return 5

        def __getitem__(self, index):
            return [(self.rank, index)]

    for rank in (0, 1, 2):
        every = OfEveryRank(Mine(rank), ranks=3)
        batches = BatchSampler(SequentialSampler(every), batch_size=1, drop_last=False)
        shard = BatchSamplerShard(batches, num_processes=3, process_index=rank, even_batches=False)
        assert [every[at] for (at,) in shard] == [[(rank, index)] for index in range(5)]
        with pytest.raises(IndexError):
            every[(rank + 1) % 3]
