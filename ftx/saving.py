"""What a training writes of its model: checkpoints with the best among them, weights of each epoch, ``model/``.

Room is made before each write; a write that fails leaves nothing half-written, and the run can go on from its newest
checkpoint.
"""

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ftx import checkpoints, progress
from ftx.checkpoints import Best
from ftx.config.parallel import strategy_of, zero_stage
from ftx.config.schema import RunConfig
from ftx.disk import DiskFull, free_bytes, in_words, says_full, size_of
from ftx.distributed import is_main
from ftx.heartbeat import beat
from ftx.run_folder import RunFolder
from ftx.writing import of_this_attempt

# Random states, Trainer's own record, configurations, the tokenizer.
SMALL_FILES = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """Bytes of a checkpoint and of the model alone: expected before one is written, then as the last one was."""

    checkpoint: int
    model: int


def expected_sizes(run: RunConfig, model: torch.nn.Module) -> Sizes:
    """The parameters that are saved, of an adapter only its own, and in a checkpoint two moments of each trained one.

    8-bit optimizers keep a byte for each moment, others the parameter's own type. ZeRO writes the weights twice, in
    the run's precision, and master weights and moments in 32-bit floats.
    """
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    saved = list(model.parameters()) if run.method.name == "full" else trained
    weights = sum(_count(one) * one.element_size() for one in saved)
    count = sum(map(_count, trained))
    if zero_stage(strategy_of(run)):
        weights = sum(map(_count, saved)) * (4 if run.hardware.precision == "fp32" else 2)
        state = weights + 12 * count
    elif "8bit" in run.method.optimizer:
        state = 2 * count
    else:
        state = 2 * sum(_count(one) * one.element_size() for one in trained)
    return Sizes(weights + state + SMALL_FILES, weights + SMALL_FILES)


def check_room(run: RunConfig, folder: RunFolder, sizes: Sizes, *, saves: int, copies: int) -> None:
    """Raise DiskFull where so many checkpoints, copies of the weights, and ``model/``, cannot all fit, whatever is
    removed on the way."""
    # The newest stays while the next is written, and the best with it.
    at_once = min(saves, 3 if run.schedule.best_metric else 2)
    needed = at_once * sizes.checkpoint + (copies + 1) * sizes.model
    there = free_bytes(folder.path)
    if needed > there + size_of(folder.checkpoints):
        raise DiskFull(
            f"this training takes {in_words(needed)} (at least {at_once} checkpoints at a time, {copies} copies of "
            f"the weights, and model/), {checkpoints.ways_out(folder, there)}"
        )


def _count(weights: torch.nn.Parameter) -> int:
    """Also of a parameter that ZeRO-3 has shared out, of which nothing is here."""
    return int(getattr(weights, "ds_numel", weights.numel()))


class Saver:
    """The writes of one run. ``write_model`` puts weights and tokenizer in Hugging Face layout into a folder.

    Every rank has one: what is shared out is gathered from all, rank 0 looks after the disk.
    """

    def __init__(self, run: RunConfig, folder: RunFolder, write_model: Callable[[Path], None]) -> None:
        self._run, self._folder, self._write_model = run, folder, write_model
        self._sizes = Sizes(0, 0)
        self._evaluated: dict[int, float] = {}
        # What is being written at the moment.
        self._writing = ""
        self.best: Best | None = None

    def begin(self, model: torch.nn.Module, resumed_from: Path | None, *, saves: int, copies: int) -> None:
        """Go on where a checkpoint left off. Raises DiskFull where the ``saves`` checkpoints and ``copies`` of the
        weights that are still due, and ``model/``, cannot all fit, whatever is removed on the way."""
        self._sizes = expected_sizes(self._run, model)
        if resumed_from:
            self.best = checkpoints.best_up_to(resumed_from)
            self._sizes = replace(self._sizes, checkpoint=size_of(resumed_from))
        if is_main():
            check_room(self._run, self._folder, self._sizes, saves=saves + bool(resumed_from), copies=copies)

    def hear(self, step: int, eval_loss: float) -> None:
        """The result of an evaluation: what a checkpoint of the same step can be best by."""
        self._evaluated = {step: eval_loss}

    def before_checkpoint(self, step: int) -> None:
        """Trainer writes next: until ``publish`` an error is one of writing."""
        what = f"the checkpoint of step {step}"
        beat(f"writing {what}")
        if is_main():
            checkpoints.make_room(self._folder, self._sizes.checkpoint, what, self.best)
        self._writing = what

    def publish(self, step: int, *, may_be_best: bool) -> None:
        """Give what Trainer has written its name."""
        metric, value = self._run.schedule.best_metric, self._evaluated.get(step, math.nan)
        if metric and may_be_best and math.isfinite(value) and (self.best is None or value < self.best.value):
            self.best = Best(step, metric, value)
        if is_main():
            final = checkpoints.publish(self._folder, step, self._run.schedule.keep_checkpoints, self.best)
            self._sizes = replace(self._sizes, checkpoint=size_of(final))
        self._writing = ""
        beat()

    def keep_weights(self, epoch: int) -> None:
        """Write ``weights/epoch-<n>/``, which no limit removes."""
        self._write(f"the weights of epoch {epoch}", self._folder.weights / f"epoch-{epoch}")

    def publish_model(self) -> None:
        """Write ``model/``."""
        self._write("model/", self._folder.model)
        if is_main():
            # Also what late ranks of an old start have written since.
            self._folder.check_ours()
            for unfinished in self._folder.checkpoints.glob(".*"):
                shutil.rmtree(unfinished, ignore_errors=True)

    def best_checkpoint(self, last_step: int) -> Path | None:
        """Whose weights ``model/`` gets; None where those of the last step are right."""
        if self._run.schedule.best_metric is None:
            return None
        if self.best is None:
            progress.say("no eval_loss was finite: model/ gets the weights of the last step")
            return None
        progress.say(f"best of {self.best.metric}: {self.best.value:.4f} at step {self.best.step}")
        return None if self.best.step == last_step else self._folder.checkpoints / f"step-{self.best.step}"

    @contextmanager
    def failures_explained(self) -> Iterator[None]:
        """Within it a write that fails leaves nothing behind; raises DiskFull where there was no room for it."""
        try:
            yield
        except Exception as error:
            if not self._writing:
                raise
            for half in _half_written(self._folder) if is_main() else []:
                shutil.rmtree(half, ignore_errors=True)
            if not says_full(error):
                raise
            reason = (str(error).splitlines() or [""])[0]
            there = free_bytes(self._folder.path)
            raise DiskFull(
                f"{self._writing} could not be written ({reason}), {checkpoints.ways_out(self._folder, there)}"
            ) from error

    def _write(self, what: str, final: Path) -> None:
        beat(f"writing {what}")
        if is_main():
            checkpoints.make_room(self._folder, self._sizes.model, what, self.best)
        self._writing = what
        writing = final.with_name(of_this_attempt(f".{final.name}.writing"))
        self._write_model(writing)
        if is_main():
            self._folder.publish(writing, final)
            self._sizes = replace(self._sizes, model=size_of(final))
        self._writing = ""


def _half_written(folder: RunFolder) -> list[Path]:
    unfinished = of_this_attempt(".*.writing")
    return [checkpoints.writing_folder(folder), *folder.path.glob(unfinished), *folder.weights.glob(unfinished)]
