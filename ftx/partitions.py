"""The optimizer's whole state into what each strategy keeps of it in this process."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from ftx.config.parallel import zero_stage


class Moments(Protocol):
    """AdamW's state by parameter name: the moments are shaped like the parameter, or flat."""

    @property
    def steps(self) -> float: ...

    def moments(self, name: str) -> dict[str, torch.Tensor]: ...


Masters = dict[str, torch.Tensor]


def master_weights(strategy: str, model: torch.nn.Module) -> Masters:
    """The weights to go on from before DeepSpeed rounds those that the model computes with; {} where nobody does."""
    if not zero_stage(strategy):
        return {}
    return {name: weight.detach().float().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def fill_optimizer(strategy: str, model: torch.nn.Module, optimizer: Any, whole: Moments, masters: Masters) -> None:
    """``model`` and ``optimizer`` as they are once shared out, before the first step; every rank calls it."""
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if zero_stage(strategy):
        _fill_zero(zero_stage(strategy), trainable, optimizer, whole, masters)
        return
    for name, parameter in trainable:
        filled: dict[str, torch.Tensor] = {
            key: _cut_like(parameter, moment.view(parameter.shape)) for key, moment in whole.moments(name).items()
        }
        optimizer.state[parameter] = {"step": _steps(whole, parameter), **filled}


def _steps(whole: Moments, beside: torch.Tensor) -> torch.Tensor:
    """Where the fused optimizer of a GPU reads it."""
    return torch.tensor(whole.steps, dtype=torch.float32, device=beside.device)


def _cut_like(parameter: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """A copy on the parameter's device, cut as FSDP cuts the parameter."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    there = whole.to(parameter.device, parameter.dtype, copy=True)
    if isinstance(parameter, DTensor):
        return distribute_tensor(there, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return there


def _fill_zero(
    stage: int, trainable: Sequence[tuple[str, torch.Tensor]], optimizer: Any, whole: Moments, masters: Masters
) -> None:
    """DeepSpeed flattens this rank's part of each group into one parameter, whose state its first step would make."""
    from deepspeed.utils import (
        safe_set_full_fp32_param,
        safe_set_full_optimizer_state,
        safe_set_local_fp32_param,
        safe_set_local_optimizer_state,
    )

    flats = optimizer.fp32_partitioned_groups_flat if stage == 3 else optimizer.single_partition_of_fp32_groups
    for flat in flats:
        moments = {key: torch.zeros_like(flat) for key in ("exp_avg", "exp_avg_sq")}
        optimizer.optimizer.state[flat] = {"step": _steps(whole, flat), **moments}
    if stage < 3:
        optimizer._lazy_init_hp_params_optimizer_state()
    for name, parameter in trainable:
        if stage < 3:
            safe_set_full_fp32_param(parameter, masters[name])
            for key, moment in whole.moments(name).items():
                safe_set_full_optimizer_state(parameter, moment, key)
        else:
            safe_set_local_fp32_param(parameter, _own_part(parameter, masters[name]))
            for key, moment in whole.moments(name).items():
                safe_set_local_optimizer_state(parameter, _own_part(parameter, moment), key)


def _own_part(parameter: Any, whole: torch.Tensor) -> torch.Tensor:
    """This rank's part of a parameter as ZeRO-3 cuts it: equal lengths, the last one filled up with zeros."""
    length, rank = parameter.ds_tensor.ds_numel, torch.distributed.get_rank()
    part = whole.flatten()[rank * length : (rank + 1) * length]
    return torch.nn.functional.pad(part, (0, length - len(part)))
