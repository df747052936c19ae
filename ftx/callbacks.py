"""What happens between Trainer's steps: metrics rows, evaluation, checkpoints, stopping."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftx import checkpoints, metrics_log
from ftx.config.parallel import micro_batch_of, ranks
from ftx.config.schema import RunConfig, ScheduleConfig
from ftx.data.order import TrainingOrder
from ftx.data.prepare import Prepared
from ftx.distributed import any_of, is_main, rank_of
from ftx.flops import Utilisation
from ftx.heartbeat import beat
from ftx.loss import TokenLoss, shared_mean_loss
from ftx.profiling import ProfileWindow
from ftx.progress import Progress
from ftx.resume import note_origin
from ftx.run_folder import RunFolder
from ftx.saving import Saver
from ftx.stopping import StopRequest
from ftx.system_metrics import SystemMetrics
from ftx.throughput import StepClock, peak_memory_gib
from ftx.writing import write_json

LOSS_STATE = "loss_state.json"
# A message names at most so many conversations.
NAMED = 20


@dataclass(frozen=True)
class Length:
    """How long a training is, in optimizer steps."""

    steps_per_epoch: int
    steps: int

    def is_due(self, every: int | str, step: int) -> bool:
        """Whether ``every`` (a number of steps, ``epoch`` or ``never``) falls on ``step``."""
        if every == "never":
            return False
        if every == "epoch":
            return step % self.steps_per_epoch == 0 or step == self.steps
        return step % int(every) == 0

    def saves(self, schedule: ScheduleConfig, step: int) -> bool:
        """Where the best is looked for, the end is one of the candidates."""
        return self.is_due(schedule.save_every, step) or self._ends_the_choice(schedule, step)

    def evaluates(self, schedule: ScheduleConfig, step: int) -> bool:
        return self.is_due(schedule.eval_every, step) or self._ends_the_choice(schedule, step)

    def keeps_weights(self, schedule: ScheduleConfig, step: int) -> bool:
        """After each whole epoch."""
        return schedule.save_weights == "epoch" and step % self.steps_per_epoch == 0

    def _ends_the_choice(self, schedule: ScheduleConfig, step: int) -> bool:
        return schedule.best_metric is not None and step == self.steps


@dataclass
class RunCallback(TrainerCallback):
    """Writes what DESIGN calls a run, at the intervals that the schedule asks for; ``on_row`` hears of new rows."""

    run: RunConfig
    prepared: Prepared
    folder: RunFolder
    order: TrainingOrder
    length: Length
    token_loss: TokenLoss
    saver: Saver
    utilisation: Utilisation
    stop: StopRequest
    on_row: Callable[[], None]

    def __post_init__(self) -> None:
        self._clock = StepClock()
        self._system = SystemMetrics(self.folder, enabled=self.run.tracking.system_metrics)
        self._profile = ProfileWindow(self.run.schedule.profile_steps if is_main() else [], self.folder)
        self._title, self._facts = f"train {self.run.name}", ""
        self._step_ended = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        step = state.global_step
        self._progress = Progress(self._title, self.length.steps, done=step)
        if step == 0 and self.run.schedule.eval_every != "never":
            self._evaluate(kwargs["model"], state)
        self._clock.restart(step, self.order.seen(step).total)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Dropout by seed, step and rank: the same after a resume, whatever was drawn before."""
        beat(self._title, state.global_step)
        self._profile.step_begins(state.global_step + 1)
        drawn = np.random.SeedSequence([self.run.seed, state.global_step, rank_of(self.run).index]).generate_state(1)
        torch.manual_seed(int(drawn[0]))

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After each micro-batch but the last of a step."""
        beat()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Raises FloatingPointError for a loss that is not finite, on every rank, before it gets into a checkpoint.

        It is the loss before fp16's scaling, which has steps of its own to skip.
        """
        wrong = self.token_loss.passes_gone_wrong()
        if wrong:
            schedule, step = self.run.schedule, state.global_step
            shares = self.order.micro_batches(
                *divmod(step, self.length.steps_per_epoch),
                size=micro_batch_of(self.run),
                count=args.gradient_accumulation_steps,
            )
            items = [row for rank, at in wrong for row in shares[rank][at]]
            raise FloatingPointError(
                f"the loss of step {step + 1} is not finite, in {some_of(self.order.ids(np.concatenate(items)))}: look "
                f"at what they hold, or lower schedule.learning_rate={schedule.learning_rate:g}"
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        step, schedule = state.global_step, self.run.schedule
        with self._clock.stopped():
            self._profile.step_ends(step)
        self._progress.show(step, self._facts)
        control.should_log = step % schedule.log_every == 0 or step == self.length.steps
        control.should_save = self.length.saves(schedule, step)
        if self.length.evaluates(schedule, step):
            self._evaluate(kwargs["model"], state)
        if any_of(bool(self.stop.reason)):
            control.should_training_stop = True
            control.should_save = True
        # Weights first: a resume begins behind its checkpoint.
        if self.length.keeps_weights(schedule, step):
            with self._clock.stopped():
                self.saver.keep_weights(step // self.length.steps_per_epoch)
        if control.should_save:
            self.saver.before_checkpoint(step)
        self._step_ended = time.perf_counter()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Trainer's own summary at the end, which has no ``grad_norm``, is not a row."""
        if logs is None or "loss" not in logs:
            return
        step = state.global_step
        seen = self.order.seen(step)
        first = self._clock.step
        seconds, tps = self._clock.read(step, seen.total)
        mfu = self.utilisation.read(first, step, seconds * (step - first))
        train_loss = self.token_loss.mean_and_reset()
        if not is_main():
            return
        row = {
            "step": step,
            "epoch": state.epoch,
            "learning_rate": logs["learning_rate"],
            "train_loss": train_loss,
            "grad_norm": logs.get("grad_norm"),
            "total_tokens": seen.total,
            "supervised_tokens": seen.supervised,
            # Rows are flattened, never padded.
            "total_tokens_including_padding": seen.total,
            "per_device_tps": tps / ranks(self.run),
            "per_device_tps_including_padding": tps / ranks(self.run),
            "mfu": mfu,
            "step_seconds": seconds,
            "memory_gib": peak_memory_gib(),
        }
        self._facts = f"loss {train_loss:.4f}  {tps:,.0f} tokens/s" + (f"  mfu {mfu:.1%}" if mfu else "")
        self._system.sample(step)
        self._write(row)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        written = checkpoints.writing_folder(self.folder) / f"checkpoint-{state.global_step}"
        loss_state = self.token_loss.state()  # adds up over the ranks: all of them have written their part
        if is_main():
            write_json(written / LOSS_STATE, loss_state)
            note_origin(written, self.run, kwargs["model"], kwargs["optimizer"])
        is_due = self.length.saves(self.run.schedule, state.global_step)
        self.saver.publish(state.global_step, may_be_best=is_due)
        self._clock.leave_out(time.perf_counter() - self._step_ended)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._profile.training_ends(state.global_step)
        self._progress.__exit__()

    def _evaluate(self, model: torch.nn.Module, state: TrainerState) -> None:
        if not len(self.prepared.evaluation):
            return
        begin = time.perf_counter()
        loss = shared_mean_loss(model, self.prepared.evaluation, rank_of(self.run))
        self.saver.hear(state.global_step, loss)
        if is_main():
            self._write({"step": state.global_step, "epoch": state.epoch or 0.0, "eval_loss": loss})
        self._clock.leave_out(time.perf_counter() - begin)

    def _write(self, row: dict[str, Any]) -> None:
        metrics_log.append(self.folder, self.folder.metrics, row)
        self.on_row()


def some_of(ids: Sequence[str]) -> str:
    """The names of conversations, for a message."""
    more = f" and {len(ids) - NAMED:,} more" if len(ids) > NAMED else ""
    return ", ".join(ids[:NAMED]) + more
