"""One training run through the Hugging Face Trainer, configured here and nowhere else."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from ftx import checkpoints, metrics_log
from ftx.callbacks import LOSS_STATE, Length, RunCallback, some_of
from ftx.compiled import compiled_layers, worth_compiling
from ftx.config.parallel import micro_batch_of, ranks, strategy_of, zero_stage
from ftx.config.schema import RunConfig
from ftx.data.collate import MicroBatchCollator
from ftx.data.order import MicroBatches, OfEveryRank, TrainingOrder, order_of
from ftx.data.prefix import prefix_to_share
from ftx.data.prepare import Prepared
from ftx.distributed import any_of, is_main, rank_of
from ftx.errors import Interrupted, UserError
from ftx.flops import Sharing, Utilisation
from ftx.generation_settings import write_generation_settings
from ftx.head import loss_in_head
from ftx.loss import TokenLoss
from ftx.neftune import noisy_embeddings, with_noise
from ftx.optimizers import own_optimizer
from ftx.partitions import fill_optimizer, master_weights
from ftx.precision import autocasts
from ftx.resume import WholeState, converted_folder, copy_saved_weights, load_saved_weights, origin_of, reads_as_it_is
from ftx.run_folder import RunFolder
from ftx.saving import Saver
from ftx.schedules import scheduler_arguments, training_steps
from ftx.stopping import WARNING, StopRequest
from ftx.strategies import (
    fsdp_precision,
    let_accelerate_shard_on_cpu,
    let_deepspeed_build_nothing,
    strategy_arguments,
)
from ftx.throughput import peak_flops

log = logging.getLogger(__name__)


def training_length(run: RunConfig, order: TrainingOrder) -> Length:
    """The last step of an epoch is short where ``global_batch_size`` does not divide the rows."""
    return Length(order.steps_per_epoch, training_steps(run.schedule, order.steps_per_epoch))


def micro_batches_in_step(run: RunConfig, order: TrainingOrder) -> int:
    """The same for every step: as many as the one with the most rows needs."""
    return order.micro_batches_needed(training_length(run, order).steps, micro_batch_of(run))


def check_supervised(order: TrainingOrder, length: Length) -> None:
    """Raise UserError for a global batch that has nothing to learn from."""
    step = order.unsupervised_step(length.steps)
    if step is not None:
        epoch, at = divmod(step, length.steps_per_epoch)
        raise UserError(
            f"step {step + 1} has no supervised token, in {some_of(order.ids(order.steps(epoch)[at]))}: leave them "
            "out, or raise schedule.global_batch_size"
        )


def train(
    run: RunConfig,
    prepared: Prepared,
    model: PreTrainedModel,
    folder: RunFolder,
    stop: StopRequest,
    on_row: Callable[[], None],
) -> None:
    """Train to the end from the newest checkpoint or from the start, and publish ``model/``.

    Raises Interrupted, with a checkpoint written, when ``stop`` is requested.
    """
    order = order_of(run, prepared)
    length = training_length(run, order)
    check_supervised(order, length)
    accumulation = micro_batches_in_step(run, order)
    resume, token_loss = checkpoints.latest(folder), TokenLoss()
    rank = rank_of(run)
    if rank.is_main:
        _go_on_from(resume, folder, token_loss)
    if resume:
        log.info("resuming from step %d of %d", resume[0], length.steps)
    loss_in_head(model, run.model.loss)
    shared = _shared_prefix(run, order, accumulation)

    def write_model(path: Path) -> None:
        trainer.save_model(str(path))
        if is_main():
            (path / "training_args.bin").unlink(missing_ok=True)
            prepared.tokenizer.save_pretrained(path)
            write_generation_settings(path, model.generation_config, prepared.tokenizer)

    saver = Saver(run, folder, write_model)
    _begin_saving(saver, run, model, resume, length)
    utilisation = _utilisation(run, order, model, shared, accumulation)
    callback = RunCallback(run, prepared, folder, order, length, token_loss, saver, utilisation, stop, on_row)
    mine = MicroBatches(order, size=micro_batch_of(run), accumulation=accumulation, rank=rank.index)
    trainer = _Trainer(
        model=model,
        args=_arguments(run, folder, length, accumulation),
        train_dataset=OfEveryRank(mine, rank.count),
        data_collator=with_noise(MicroBatchCollator(shared), run),
        compute_loss_func=token_loss,
        callbacks=[callback],
        optimizer_cls_and_kwargs=own_optimizer(run),
    )
    if strategy_of(run) == "fsdp":
        trainer.accelerator.state.fsdp_plugin.mixed_precision_policy = fsdp_precision(run)
    if resume and not reads_as_it_is(run, origin_of(resume[1])):
        trainer.reads_otherwise(WholeState(resume[1], resume[0], converted_folder(folder)), strategy_of(run))
    trainer.remove_callback(PrinterCallback)
    compiling = worth_compiling(run, model, order.seen(length.steps).total)
    with (
        stop.deferred(),
        saver.failures_explained(),
        noisy_embeddings(model, run.method.neftune_alpha),
        compiled_layers(model, on=compiling),
    ):
        _train_to_the_end(trainer, saver, resume, length)
    if any_of(bool(stop.reason)):
        raise Interrupted(_reason_of_all(stop))


def _shared_prefix(run: RunConfig, order: TrainingOrder, accumulation: int) -> int:
    """Tokens that are computed once for a micro-batch, said where there are any."""
    shared = prefix_to_share(run, order, micro_batches=order.steps_per_epoch * accumulation * ranks(run))
    if shared:
        log.info("the %d tokens that all conversations begin with are computed once for a micro-batch", shared)
    return shared


def _reason_of_all(stop: StopRequest) -> str:
    """Ranks are not told at the same moment, and some perhaps never."""
    if any_of(stop.reason == WARNING.name):
        return WARNING.name
    return stop.reason or "another rank was told to stop"


def _train_to_the_end(trainer: "_Trainer", saver: Saver, resume: tuple[int, Path] | None, length: Length) -> None:
    """The steps that are left and then ``model/``, unless the training is told to stop before."""
    step, checkpoint = resume or (0, None)
    if checkpoint and step == length.steps:
        # Only model/ is missing; Trainer would add a step where max_steps cuts an epoch short.
        trainer.take_weights(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        step = trainer.state.global_step
    if step == length.steps:
        if best := saver.best_checkpoint(step):
            trainer.take_weights(best)
        saver.publish_model()


def _arguments(run: RunConfig, folder: RunFolder, length: Length, accumulation: int) -> TrainingArguments:
    """Trainer's own saving, logging, evaluating and printing are off: they are the callback's.

    An item of the data set is a whole micro-batch, so Trainer's own batches are of one.
    """
    schedule, method, hardware = run.schedule, run.method, run.hardware
    if zero_stage(strategy_of(run)):
        let_deepspeed_build_nothing()
    arguments = TrainingArguments(
        output_dir=str(checkpoints.writing_folder(folder)),
        max_steps=length.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=accumulation,
        learning_rate=schedule.learning_rate,
        **scheduler_arguments(schedule, length.steps),
        optim=method.optimizer,
        adam_beta1=method.adam_beta1,
        adam_beta2=method.adam_beta2,
        adam_epsilon=method.adam_epsilon,
        weight_decay=method.weight_decay,
        max_grad_norm=method.max_grad_norm,
        bf16=hardware.precision == "bf16" and autocasts(run),
        fp16=hardware.precision == "fp16",
        use_cpu=hardware.device == "cpu",
        seed=run.seed,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=hardware.device == "cuda",
        accelerator_config={"even_batches": False, "dispatch_batches": False},
        **strategy_arguments(run, accumulation),
    )
    # One process takes one GPU, however many there are: Trainer would spread its model over all of them.
    if arguments.device.type == "cuda":
        arguments._n_gpu = 1
    if strategy_of(run) == "fsdp" and hardware.device == "cpu":
        let_accelerate_shard_on_cpu()
    return arguments


def _utilisation(
    run: RunConfig, order: TrainingOrder, model: PreTrainedModel, shared: int, accumulation: int
) -> Utilisation:
    def with_rows(step: int) -> int:
        epoch, at = divmod(step, order.steps_per_epoch)
        shares = order.micro_batches(epoch, at, size=micro_batch_of(run), count=accumulation)
        return sum(bool(rows) for micro_batches in shares for rows in micro_batches)

    peak = peak_flops(run.hardware)
    return Utilisation(order, model, peak and ranks(run) * peak, Sharing(shared, with_rows) if shared else None)


def _go_on_from(resume: tuple[int, Path] | None, folder: RunFolder, token_loss: TokenLoss) -> None:
    """For rank 0: rows behind the checkpoint are cut, and the sum for the next row is the one it had."""
    metrics_log.cut_after(folder, resume[0] if resume else -1)
    if resume:
        token_loss.restore(json.loads((resume[1] / LOSS_STATE).read_text(encoding="utf-8")))


def _begin_saving(
    saver: Saver, run: RunConfig, model: PreTrainedModel, resume: tuple[int, Path] | None, length: Length
) -> None:
    """Before hours are spent: what is still to be written has to fit."""
    step, checkpoint = resume or (0, None)
    to_come = range(step + 1, length.steps + 1)
    saves = sum(length.saves(run.schedule, one) for one in to_come)
    copies = sum(length.keeps_weights(run.schedule, one) for one in to_come)
    saver.begin(model, checkpoint, saves=saves, copies=copies)


class _Trainer(Trainer):
    """Trainer, which also goes on from a checkpoint that another strategy wrote, and saves tied weights once."""

    model: Any
    optimizer: Any
    lr_scheduler: Any
    _whole: WholeState | None = None
    _strategy = ""
    _taken: Path | None = None

    def reads_otherwise(self, whole: WholeState, strategy: str) -> None:
        """The next ``train`` goes on from ``whole``, however it was written."""
        self._whole, self._strategy = whole, strategy

    def take_weights(self, checkpoint: Path) -> None:
        """What is saved from now on are the weights of a checkpoint; a process alone has them in its model too."""
        self._taken = checkpoint
        if self._whole is not None:
            self._whole.forget()
        if self.args.world_size == 1:
            load_saved_weights(self.model, checkpoint)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if self._taken is None or output_dir is None:
            super().save_model(output_dir, _internal_call)
        elif is_main():
            copy_saved_weights(self._taken, Path(output_dir))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self._whole is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        if self._whole is None:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        self._whole.load_weights(self.model)
        masters = master_weights(self._strategy, self.model)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        fill_optimizer(self._strategy, self.model, self.optimizer.optimizer, self._whole, masters)
        self._set_schedule(self._whole.scheduler)
        self._whole.forget()
        return prepared

    def _set_schedule(self, saved: dict[str, Any]) -> None:
        """All groups of parameters have one learning rate, but not every strategy keeps empty groups."""
        own, (learning_rate, *_) = self.lr_scheduler.state_dict(), saved["_last_lr"]
        of_each = {"base_lrs": own["base_lrs"], "_last_lr": [learning_rate] * len(own["base_lrs"])}
        self.lr_scheduler.load_state_dict({**saved, **of_each, "lr_lambdas": own["lr_lambdas"]})
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Gathered from all ranks, a weight that has two names comes twice."""
        if state_dict is not None:
            twice = getattr(self.model, "all_tied_weights_keys", {})
            state_dict = {name: weight for name, weight in state_dict.items() if name not in twice}
        super()._save(output_dir, state_dict)
