"""Keys of method, schedule and hardware that do not fit together, each with its way out."""

import pytest

from ftx.config.compose import compose
from ftx.config.identity import identity_keys
from ftx.errors import UserError

MISTAKES = {
    "masters in fp32": (["method.master_weights=none"], r"hardware\.precision=fp32 .* needs hardware\.precision=bf16"),
    "rounding unread": (["method.stochastic_rounding=true"], r"only method\.master_weights=none does"),
    "rounding in 8 bits": (
        [
            "hardware.precision=bf16",
            "method.master_weights=none",
            "method.stochastic_rounding=true",
            "method.optimizer=adamw_8bit",
        ],
        "needs adamw_torch or adamw_torch_fused",
    ),
    "adapter key": (["method.lora.dora=true"], r"only method=lora and method=qlora do"),
    "minimum unread": (["schedule.min_lr_ratio=0.2"], r"only schedule=cosine_with_min_lr does"),
    "decay unread": (["schedule.decay=0.2"], "only schedule=wsd does"),
    "decay in half steps": (["schedule=wsd", "schedule.decay=2.5"], r"schedule\.decay=2\.5.*write a share.* or 3"),
    "too much of it": (["schedule=wsd", "schedule.warmup=0.6", "schedule.decay=0.6"], "more than all steps"),
    "no end": (["schedule.epochs=null"], r"set schedule\.max_steps"),
    "kernels on a CPU": (["model.kernels=liger"], r"need a GPU; use model\.kernels=auto or none"),
    "offload alone": (
        ["hardware=8xH100", "hardware.activation_offload=true", "schedule.global_batch_size=8"],
        r"only hardware\.activation_checkpointing=true does",
    ),
    "offload on a CPU": (
        ["hardware.activation_offload=true", "hardware.activation_checkpointing=true"],
        "in the host's memory already",
    ),
    "tf32 on a CPU": (["hardware.tf32=false"], "only hardware with GPUs does"),
    "no noise": (["method.neftune_alpha=0"], r"method\.neftune_alpha=0.*must be above 0"),
    "fp16 on a CPU": (["hardware.precision=fp16"], "not on a CPU"),
    "8-bit optimizer in parts": (
        ["hardware.processes_per_node=2", "hardware.strategy=fsdp", "method.optimizer=adamw_8bit"],
        r"method\.optimizer=adamw_8bit: cannot step.*hardware\.strategy=zero2, or method\.optimizer=adamw_torch_fused",
    ),
    "compiled in 4 bits": (["method=qlora", "model.compile=always"], r"model\.compile=always: .*method=qlora"),
    "compiled in parts": (
        ["hardware.processes_per_node=2", "hardware.strategy=zero3", "model.compile=always"],
        r"model\.compile=always: hardware\.strategy=zero3",
    ),
    "the best of nothing": (
        ["schedule.epochs=0", "schedule.best_metric=eval_loss"],
        "schedule.epochs=0 trains nothing",
    ),
    "optimizer": (["method.optimizer=adamw_8bits"], r"did you mean adamw_8bit\?"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_say_what_is_wrong_and_the_way_out(mistake):
    words, said = MISTAKES[mistake]
    with pytest.raises(UserError, match=said):
        compose(*words)


@pytest.mark.parametrize("words", [[], ["hardware.processes_per_node=2"], ["schedule.global_batch_size=1"]])
def test_a_step_that_is_smaller_than_what_goes_through_at_once_is_one(words):
    """hardware.micro_batch is how many rows go through at most."""
    assert compose(*words).hardware.micro_batch == 2


def test_what_only_saves_memory_or_time_is_not_in_the_identity():
    words = ("hardware.activation_checkpointing=true", "model.kernels=none")
    assert identity_keys(compose(*words)) == identity_keys(compose())


def test_qlora_comes_with_the_numbers_of_its_recipe():
    method = compose("method=qlora").method
    assert (method.lora.rank, method.lora.alpha, method.optimizer) == (16, 32, "paged_adamw_8bit")
