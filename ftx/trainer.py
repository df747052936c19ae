"""One training run through the Hugging Face Trainer, configured here and nowhere else."""

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from ftx import checkpoints, metrics_log
from ftx.callbacks import LOSS_STATE, Length, RunCallback, some_of
from ftx.compiled import compiled_layers, worth_compiling
from ftx.config.checks import ranks
from ftx.config.schema import RunConfig
from ftx.data.collate import MicroBatchCollator
from ftx.data.order import MicroBatches, TrainingOrder, order_of
from ftx.data.prefix import prefix_to_share
from ftx.data.prepare import Prepared
from ftx.errors import Interrupted, UserError
from ftx.flops import Sharing, Utilisation
from ftx.head import loss_in_head
from ftx.loss import TokenLoss
from ftx.neftune import noisy_embeddings, with_noise
from ftx.optimizers import own_optimizer
from ftx.precision import autocasts
from ftx.run_folder import RunFolder
from ftx.saving import Saver
from ftx.schedules import scheduler_arguments, training_steps
from ftx.stopping import StopRequest
from ftx.throughput import peak_flops

log = logging.getLogger(__name__)


def training_length(run: RunConfig, order: TrainingOrder) -> Length:
    """The last step of an epoch is short where ``global_batch_size`` does not divide the rows."""
    return Length(order.steps_per_epoch, training_steps(run.schedule, order.steps_per_epoch))


def micro_batches_in_step(run: RunConfig, order: TrainingOrder) -> int:
    """The same for every step: as many as the one with the most rows needs."""
    return math.ceil(order.most_rows(training_length(run, order).steps) / (ranks(run) * run.hardware.micro_batch))


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
    resume = checkpoints.latest(folder)
    step = resume[0] if resume else 0
    metrics_log.cut_after(folder.metrics, step if resume else -1)
    if resume:
        log.info("resuming from step %d of %d", step, length.steps)
    loss_in_head(model, run.model.loss)
    token_loss = TokenLoss()
    if resume:
        token_loss.restore(json.loads((resume[1] / LOSS_STATE).read_text(encoding="utf-8")))
    shared = prefix_to_share(run, order, micro_batches=order.steps_per_epoch * accumulation * ranks(run))
    if shared:
        log.info("the %d tokens that all conversations begin with are computed once for a micro-batch", shared)

    def write_model(path: Path) -> None:
        trainer.save_model(str(path))
        (path / "training_args.bin").unlink(missing_ok=True)
        prepared.tokenizer.save_pretrained(path)

    saver = Saver(run, folder, write_model)
    _begin_saving(saver, run, model, resume, length)
    utilisation = _utilisation(run, order, model, shared, accumulation)
    callback = RunCallback(run, prepared, folder, order, length, token_loss, saver, utilisation, stop, on_row)
    trainer = Trainer(
        model=model,
        args=_arguments(run, folder, length, accumulation),
        train_dataset=MicroBatches(order, size=run.hardware.micro_batch, accumulation=accumulation),
        data_collator=with_noise(MicroBatchCollator(shared), run),
        compute_loss_func=token_loss,
        callbacks=[callback],
        optimizer_cls_and_kwargs=own_optimizer(run),
    )
    trainer.remove_callback(PrinterCallback)
    compiling = worth_compiling(run, model, order.seen(length.steps).total)
    with (
        stop.deferred(),
        saver.failures_explained(),
        noisy_embeddings(model, run.method.neftune_alpha),
        compiled_layers(model, on=compiling),
    ):
        if resume and step == length.steps:
            # Only model/ is missing; Trainer would add a step where max_steps cuts an epoch short.
            trainer._load_from_checkpoint(str(resume[1]))
        else:
            trainer.train(resume_from_checkpoint=str(resume[1]) if resume else None)
            step = trainer.state.global_step
        if step == length.steps:
            if best := saver.best_checkpoint(step):
                trainer._load_from_checkpoint(str(best))
            saver.publish_model()
    if stop.reason:
        raise Interrupted(stop.reason)


def _arguments(run: RunConfig, folder: RunFolder, length: Length, accumulation: int) -> TrainingArguments:
    """Trainer's own saving, logging, evaluating and printing are off: they are the callback's.

    An item of the data set is a whole micro-batch, so Trainer's own batches are of one.
    """
    schedule, method, hardware = run.schedule, run.method, run.hardware
    return TrainingArguments(
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
    )


def _utilisation(
    run: RunConfig, order: TrainingOrder, model: PreTrainedModel, shared: int, accumulation: int
) -> Utilisation:
    def with_rows(step: int) -> int:
        epoch, at = divmod(step, order.steps_per_epoch)
        shares = order.micro_batches(epoch, at, ranks=ranks(run), size=run.hardware.micro_batch, count=accumulation)
        return sum(bool(rows) for micro_batches in shares for rows in micro_batches)

    peak = peak_flops(run.hardware)
    return Utilisation(order, model, peak and ranks(run) * peak, Sharing(shared, with_rows) if shared else None)


def _begin_saving(
    saver: Saver, run: RunConfig, model: PreTrainedModel, resume: tuple[int, Path] | None, length: Length
) -> None:
    """Before hours are spent: what is still to be written has to fit."""
    step, checkpoint = resume or (0, None)
    to_come = range(step + 1, length.steps + 1)
    saves = sum(length.saves(run.schedule, one) for one in to_come)
    copies = sum(length.keeps_weights(run.schedule, one) for one in to_come)
    saver.begin(model, checkpoint, saves=saves, copies=copies)
