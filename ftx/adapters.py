"""Trainable adapters on a frozen model (LoRA), which may be quantised to 4 bits (QLoRA)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from ftx.config.schema import RunConfig
from ftx.errors import UserError
from ftx.precision import TYPES, starting_type

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig


# Numbers that share a scale in NF4.
BLOCK = 64


def quantization(run: RunConfig) -> "BitsAndBytesConfig | None":
    """How ``method=qlora`` holds the linear layers (Dettmers et al., 2023), as ``from_pretrained`` takes it."""
    if run.method.name != "qlora":
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=TYPES[run.hardware.precision],
    )


def quantised_loading(run: RunConfig) -> dict[str, Any]:
    """``from_pretrained``'s arguments for it; none for the other methods."""
    config = quantization(run)
    if config is None:
        return {}
    device = "cpu" if run.hardware.device == "cpu" else torch.cuda.current_device()
    return {"quantization_config": config, "device_map": {"": device}}


def quantised(model: PreTrainedModel, run: RunConfig) -> PreTrainedModel:
    """A model made here, loaded once more the way a stored one is, so that both are quantised alike."""
    return type(model).from_pretrained(
        None, config=model.config, state_dict=model.state_dict(), dtype=starting_type(run), **quantised_loading(run)
    )


def quantised_weights(model: PreTrainedModel) -> set[str]:
    """The names of the weights that ``method=qlora`` quantises in this model, which need not have numbers."""
    from transformers.quantizers.base import HfQuantizer

    kept = HfQuantizer.get_modules_to_not_convert(model)
    return {f"{name}.weight" for name, module in model.named_modules() if _is_linear(module) and name not in kept}


def as_quantised(weights: torch.Tensor) -> torch.Tensor:
    """What a matrix multiplies with once it is held as ``quantization`` says: its values in NF4, in the type it had."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    values, state = quantize_4bit(weights.contiguous(), blocksize=BLOCK, quant_type="nf4", compress_statistics=True)
    dequantised: torch.Tensor = dequantize_4bit(values, state)
    return dequantised


def check_quantised(model: PreTrainedModel, run: RunConfig) -> None:
    """Raise UserError where bitsandbytes' kernel for CPUs would dequantise weights to wrong values.

    It takes every row of a matrix to begin a block of 64 numbers of its own.
    """
    if run.hardware.device != "cpu":
        return
    for name, module in model.named_modules():
        if type(module).__name__ == "Linear4bit" and module.in_features % BLOCK:
            raise UserError(
                f"method=qlora: on a CPU bitsandbytes needs layers with a multiple of {BLOCK} inputs, and "
                f"{name.rsplit('.', 1)[-1]} has {module.in_features}; use method=lora, or a model of other sizes"
            )


def prepare_frozen(model: PreTrainedModel, run: RunConfig) -> PreTrainedModel:
    """Freeze the base, and keep its norms in 32 bits unless ``method.master_weights=none`` wants nothing in them.

    In place of peft's ``prepare_model_for_kbit_training``, which casts all that is not quantised to 32 bits: of a large
    vocabulary that is gigabytes of embedding and head, in which nothing is gained, as their values come from 16 bits
    and autocast casts the head back in every step. A norm is small, and its product is worth keeping exact.

    On a CPU bitsandbytes would store weights in another way, for good, at the first forward of an evaluation, and has
    no gradient through that: a training that goes on afterwards would learn from wrong ones. It is told not to.
    """
    model.requires_grad_(False)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    if run.method.master_weights == "fp32":
        for module in model.modules():
            own = list(module.parameters(recurse=False))
            is_norm = own and not isinstance(module, torch.nn.Linear) and all(weights.ndim == 1 for weights in own)
            if is_norm:
                module.float()
    return model


def add_adapter(model: PreTrainedModel, run: RunConfig) -> PreTrainedModel:
    """Put trainable adapters into the frozen model; raises UserError for unknown targets."""
    from peft import LoraConfig, get_peft_model

    lora = run.method.lora
    targets: str | list[str] = "all-linear" if lora.targets == ["all-linear"] else list(lora.targets)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(run.seed)
    try:
        return get_peft_model(model, config, autocast_adapter_dtype=_adapters_in_fp32(run))  # type: ignore[return-value]
    except ValueError as error:
        linear = sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if _is_linear(module)})
        raise UserError(
            f"method.lora.targets={list(lora.targets)}: the model has no such modules; its linear ones are "
            f"{', '.join(linear)}"
        ) from error


def load_adapter(model: PreTrainedModel, folder: Path, run: RunConfig) -> PreTrainedModel:
    """The adapter that a finished run saved, on the model that it was trained on."""
    from peft import PeftModel

    return PeftModel.from_pretrained(  # type: ignore[return-value]
        model, folder, autocast_adapter_dtype=_adapters_in_fp32(run)
    )


def _adapters_in_fp32(run: RunConfig) -> bool:
    return run.method.master_weights == "fp32"


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear)
