"""Going on from a checkpoint with other processes, or shared out otherwise, than it was written with.

What goes between the strategies is the whole state by parameter name: weights, and AdamW's two moments and step. One
process and DDP write it so, FSDP too; ZeRO's parts are put together by DeepSpeed's own conversion before the ranks
meet. Every rank then takes of it what it needs.
"""

import contextlib
import io
import json
import re
import shutil
from argparse import Namespace
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ftx import checkpoints, progress
from ftx.config.parallel import ONE_PROCESS, ranks, strategy_of, zero_stage
from ftx.config.schema import RunConfig
from ftx.config.training_checks import TORCH_OPTIMIZERS
from ftx.disk import DiskFull, free_bytes, in_words
from ftx.distributed import barrier, is_main
from ftx.errors import UserError
from ftx.run_folder import RunFolder
from ftx.writing import of_this_attempt, write_json

WRITTEN_BY = "written_by.json"
# What lies beside the weights in a checkpoint, in Hugging Face layout.
SAVED = ("config.json", "generation_config.json", "adapter_config.json", "README.md")
MOMENTS = ("exp_avg", "exp_avg_sq")
# Strategies that keep weights and optimizer whole in each process, and write them so.
WHOLE = (ONE_PROCESS, "ddp")


@dataclass(frozen=True)
class Origin:
    """How a checkpoint was written; ``parameters`` are the optimizer's, in its order, where it was whole."""

    strategy: str = ONE_PROCESS
    ranks: int = 1
    parameters: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "one process" if self.ranks == 1 else f"{self.ranks} processes and hardware.strategy={self.strategy}"


def note_origin(checkpoint: Path, run: RunConfig, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write down with a checkpoint what another strategy has to know to read it."""
    strategy, names = strategy_of(run), {id(parameter): name for name, parameter in model.named_parameters()}
    in_order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parameters = tuple(names[id(parameter)] for parameter in in_order) if strategy in WHOLE else ()
    write_json(checkpoint / WRITTEN_BY, asdict(Origin(strategy, ranks(run), parameters)))


def origin_of(checkpoint: Path) -> Origin:
    """What ``note_origin`` wrote; a checkpoint without it was written by one process."""
    if not (checkpoint / WRITTEN_BY).exists():
        return Origin()
    noted = json.loads((checkpoint / WRITTEN_BY).read_text(encoding="utf-8"))
    return Origin(noted["strategy"], noted["ranks"], tuple(noted["parameters"]))


def reads_as_it_is(run: RunConfig, origin: Origin) -> bool:
    """Whether Trainer itself can go on from such a checkpoint in this run."""
    wanted = strategy_of(run)
    if wanted in WHOLE or wanted == "fsdp":  # their checkpoints are whole
        return origin.strategy in WHOLE if wanted in WHOLE else origin.strategy == wanted
    return (origin.strategy, origin.ranks) == (wanted, ranks(run))


def make_readable(folder: RunFolder, run: RunConfig) -> None:
    """Before the ranks meet: put ZeRO's parts together where the newest checkpoint's ones are not those of this run.

    Raises UserError where that cannot be done, or there is no space for it.
    """
    newest = checkpoints.latest(folder)
    if newest is None:
        return
    step, checkpoint = newest
    origin = origin_of(checkpoint)
    if reads_as_it_is(run, origin):
        return
    as_it_was = f"processes_per_node={origin.ranks} hardware.strategy={origin.strategy}"
    if run.method.optimizer not in TORCH_OPTIMIZERS:
        raise UserError(
            f"method.optimizer={run.method.optimizer}: its state cannot be cut anew, and the checkpoint at step {step} "
            f"was written by {origin}; resume it with as many, or say fresh=true"
        )
    progress.say(f"the checkpoint at step {step} was written by {origin}: reading it for {_describe(run)}")
    if zero_stage(origin.strategy):
        _check_space(checkpoint, step, as_it_was)
        _convert(checkpoint, converted_folder(folder))


def converted_folder(folder: RunFolder) -> Path:
    """Where the parts of a ZeRO checkpoint are put together, for as long as it takes to read them."""
    return folder.checkpoints / of_this_attempt(".converted")


def _describe(run: RunConfig) -> str:
    return str(Origin(strategy_of(run), ranks(run)))


def _check_space(checkpoint: Path, step: int, as_it_was: str) -> None:
    """The conversion writes every part out, then puts them together, and copies the weights."""
    parts = sum(file.stat().st_size for file in checkpoint.rglob("*_optim_states.pt"))
    weights = sum(file.stat().st_size for file in checkpoint.rglob("*_model_states.pt"))
    needed, free = 2 * parts + weights, free_bytes(checkpoint)
    if needed > free:
        raise DiskFull(
            f"resuming from step {step} with other processes takes {in_words(needed)} for a while, and "
            f"{in_words(free)} are free in {checkpoint.parent}: make room, or resume it with hardware.{as_it_was}"
        )


def _convert(checkpoint: Path, into: Path) -> None:
    """DeepSpeed counts its steps from where it began itself, and names its folder so."""
    from deepspeed.checkpoint.ds_to_universal import main

    shutil.rmtree(into, ignore_errors=True)
    into.mkdir()
    (parts,) = checkpoint.glob("global_step*")
    asked = Namespace(
        input_folder=str(parts),
        output_folder=str(into / "universal"),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main(asked)


class WholeState:
    """The weights and the optimizer's state of a checkpoint by parameter name, whoever wrote it; mapped, not loaded."""

    def __init__(self, checkpoint: Path, step: int, converted: Path) -> None:
        self._checkpoint, self._step, self._origin = checkpoint, step, origin_of(checkpoint)
        self._by_parameter = converted / "universal" / "zero"

    def load_weights(self, model: PreTrainedModel) -> None:
        """Into a model that is whole in this process."""
        if not zero_stage(self._origin.strategy):
            load_saved_weights(model, self._checkpoint)
            return
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(self._part(name, "fp32").view_as(parameter))

    def moments(self, name: str) -> dict[str, torch.Tensor]:
        """``exp_avg`` and ``exp_avg_sq`` of a parameter, whole; shaped like it or flat."""
        if zero_stage(self._origin.strategy):
            return {moment: self._part(name, moment) for moment in MOMENTS}
        key = self._origin.parameters.index(name) if self._origin.parameters else name
        return {moment: self._optimizer_state[key][moment] for moment in MOMENTS}

    @property
    def steps(self) -> float:
        """That the optimizer has made: of every parameter alike."""
        if zero_stage(self._origin.strategy):
            return float(self._step)
        return float(next(iter(self._optimizer_state.values()))["step"])

    @cached_property
    def scheduler(self) -> dict[str, Any]:
        """The state of the learning rate's schedule, which every strategy writes alike."""
        return _load(self._checkpoint / "scheduler.pt")

    @cached_property
    def _optimizer_state(self) -> dict[Any, dict[str, torch.Tensor]]:
        name = "optimizer.pt" if self._origin.strategy in WHOLE else "optimizer.bin"
        state: dict[Any, dict[str, torch.Tensor]] = _load(self._checkpoint / name)["state"]
        return state

    def forget(self) -> None:
        """All ranks have what they need: what was converted for them is removed."""
        self.__dict__.pop("_optimizer_state", None)
        barrier()
        if is_main():
            shutil.rmtree(self._by_parameter.parents[1], ignore_errors=True)

    def _part(self, name: str, kind: str) -> torch.Tensor:
        stored = _load(self._by_parameter / name / f"{kind}.pt")
        tensor: torch.Tensor = stored["param"] if isinstance(stored, dict) else stored
        return tensor


def load_saved_weights(model: PreTrainedModel, folder: Path) -> None:
    """What a checkpoint holds of a model, or of its adapter, into one that is whole in this process."""
    from safetensors.torch import load_file

    if (folder / "adapter_model.safetensors").exists():
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(model, load_file(folder / "adapter_model.safetensors"))
        return
    for file in sorted(folder.glob("model*.safetensors")):
        model.load_state_dict(load_file(file), strict=False)


def copy_saved_weights(checkpoint: Path, into: Path) -> None:
    """The weights of a checkpoint, or its adapter, with their configuration."""
    into.mkdir()
    for file in checkpoint.iterdir():
        if file.name in SAVED or re.fullmatch(r"(model|adapter_model).*\.safetensors(\.index\.json)?", file.name):
            shutil.copy2(file, into / file.name)


def _load(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
