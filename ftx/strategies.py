"""What Trainer is told for each way of sharing a run among processes: composed from the run, kept by hand nowhere."""

from typing import Any

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy

from ftx.config.parallel import strategy_of, zero_stage
from ftx.config.schema import RunConfig
from ftx.precision import autocasts
from ftx.reduce_bucket import REDUCE_BUCKET


def strategy_arguments(run: RunConfig, accumulation: int) -> dict[str, Any]:
    """Arguments of TrainingArguments."""
    strategy = strategy_of(run)
    arguments: dict[str, Any] = {}
    if zero_stage(strategy):
        arguments["deepspeed"] = deepspeed_config(run, accumulation)
    elif strategy == "fsdp":
        arguments |= {"fsdp": True, "fsdp_config": fsdp_config()}
    elif strategy == "ddp":
        # Every micro-batch takes every parameter into its graph, also one without rows; buffers never change.
        arguments |= {"ddp_find_unused_parameters": False, "ddp_broadcast_buffers": False}
    return arguments


def deepspeed_config(run: RunConfig, accumulation: int) -> dict[str, Any]:
    """DeepSpeed's settings for a run of ``accumulation`` micro-batches a step."""
    stage = zero_stage(strategy_of(run))
    short = run.hardware.precision if autocasts(run) else "fp32"
    zero: dict[str, Any] = {
        "stage": stage,
        "contiguous_gradients": True,
        "overlap_comm": run.hardware.device == "cuda",
        "reduce_bucket_size": REDUCE_BUCKET,
    }
    if stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": short == "bf16"},
        "fp16": {"enabled": short == "fp16"},
        # Summed over micro-batches and ranks in 32 bits, as one process does.
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "train_micro_batch_size_per_gpu": 1,  # an item is a whole micro-batch
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": run.method.max_grad_norm,
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }


def fsdp_config() -> dict[str, Any]:
    """FSDP2, each layer of the model a unit; checkpoints are whole, so that any number of ranks reads them."""
    return {"version": 2, "reshard_after_forward": True, "state_dict_type": "FULL_STATE_DICT"}


def fsdp_precision(run: RunConfig) -> MixedPrecisionPolicy:
    """Computed in the run's precision, summed over ranks in 32 bits; the loss is left as it comes out."""
    short = torch.bfloat16 if run.hardware.precision == "bf16" and autocasts(run) else None
    return MixedPrecisionPolicy(param_dtype=short, reduce_dtype=torch.float32)


def let_deepspeed_build_nothing() -> None:
    """On a CPU it compiles a part for inference as soon as ranks meet, which no training uses.

    It does so behind a lock that a killed process leaves taken: every run on the machine would then wait for ever.
    """
    import deepspeed

    vars(deepspeed.ops)["__compatible_ops__"] = {}


def forget_sharing() -> None:
    """After ZeRO-3, transformers would share out every model that is loaded, and wait for ranks that are gone."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def let_accelerate_shard_on_cpu() -> None:
    """Accelerate passes over FSDP unless the processes are those of GPUs, although PyTorch's FSDP2 needs none."""
    from accelerate.state import DistributedType, PartialState

    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
