"""In which type of number weights are held and computed with."""

from contextlib import AbstractContextManager, nullcontext

import torch

from ftx.config.schema import RunConfig

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def starting_type(run: RunConfig) -> torch.dtype:
    """Of the weights that a run starts from.

    What is trained is held in 32 bits unless ``method.master_weights=none``. What an adapter leaves frozen never takes
    a step, so the type that it is computed with is enough.
    """
    frozen = run.method.name != "full"
    return TYPES[run.hardware.precision] if frozen or run.method.master_weights == "none" else torch.float32


def autocasts(run: RunConfig) -> bool:
    """Whether matrices are cast to ``hardware.precision`` as they are used; weights that are short need no cast."""
    return run.hardware.precision != "fp32" and run.method.master_weights == "fp32"


def computing(run: RunConfig) -> AbstractContextManager[object]:
    """Within it a model computes as in training, so that scores do not depend on who takes them when."""
    if not autocasts(run):
        return nullcontext()
    return torch.autocast(run.hardware.device, dtype=TYPES[run.hardware.precision])


def set_device_options(run: RunConfig) -> None:
    """How a GPU multiplies 32-bit matrices, and whether cuDNN tries its algorithms out."""
    if run.hardware.device == "cuda":
        torch.set_float32_matmul_precision("high" if run.hardware.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = run.hardware.tf32
        torch.backends.cudnn.benchmark = run.hardware.cudnn_benchmark
