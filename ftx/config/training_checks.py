"""What the words say of method and schedule, checked across their keys."""

import math

from ftx.config.data_checks import has_held_out_source
from ftx.config.parallel import ONE_PROCESS, strategy_of
from ftx.config.schema import RunConfig
from ftx.errors import UserError

TORCH_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused")


def check_method(run: RunConfig) -> None:
    """Raise UserError for keys of ``method`` that do not fit together, or not with the hardware."""
    method, hardware = run.method, run.hardware
    if method.master_weights == "none" and hardware.precision != "bf16":
        raise UserError(
            f"method.master_weights=none: hardware.precision={hardware.precision} has no shorter weights to train; it "
            "needs hardware.precision=bf16, or say method.master_weights=fp32"
        )
    if method.stochastic_rounding and method.optimizer not in TORCH_OPTIMIZERS:
        raise UserError(
            f"method.optimizer={method.optimizer}: rounds its own way; method.stochastic_rounding=true needs "
            f"{' or '.join(TORCH_OPTIMIZERS)}"
        )
    strategy = strategy_of(run)
    if method.master_weights == "none" and strategy not in (ONE_PROCESS, "ddp"):
        raise UserError(
            f"method.master_weights=none: hardware.strategy={strategy} keeps 32-bit weights of its own; say "
            "method.master_weights=fp32, or hardware.strategy=ddp"
        )


def check_compile(run: RunConfig) -> None:
    """Raise UserError where layers are to be compiled that cannot be."""
    if run.model.compile == "always" and (obstacle := no_compiling(run)):
        raise UserError(f"model.compile=always: {obstacle}; model.compile=auto leaves it out")


def no_compiling(run: RunConfig) -> str:
    """Why a run's layers cannot be compiled, as far as its words tell; empty where they can."""
    if run.method.name == "qlora":
        return "the quantised weights of method=qlora break a layer's graph at every matrix"
    if strategy_of(run) in ("zero3", "fsdp"):
        return f"hardware.strategy={strategy_of(run)} gathers weights inside of the layers"
    return ""


def check_schedule(run: RunConfig) -> None:
    """Raise UserError for keys of ``schedule`` that do not fit together."""
    schedule = run.schedule
    if schedule.epochs is None and schedule.max_steps is None:
        raise UserError("schedule.epochs=null: somebody has to say when training ends; set schedule.max_steps")
    if schedule.epochs == 0 and schedule.max_steps:
        raise UserError(f"schedule.max_steps={schedule.max_steps}: schedule.epochs=0 trains nothing; drop one of them")
    for name, value in (("warmup", schedule.warmup), ("decay", schedule.decay)):
        if value >= 1 and value != int(value):
            raise UserError(
                f"schedule.{name}={value}: below 1 it is a share of all steps, from 1 on a number of steps; "
                f"write a share such as 0.1, or {math.ceil(value)}"
            )
    if schedule.max_steps and 1 <= schedule.warmup > schedule.max_steps:
        raise UserError(
            f"schedule.warmup={schedule.warmup:g}: longer than schedule.max_steps={schedule.max_steps}; shorten it"
        )
    if schedule.name == "wsd" and schedule.warmup < 1 > schedule.decay and schedule.warmup + schedule.decay > 1:
        raise UserError(
            f"schedule.decay={schedule.decay:g}: with schedule.warmup={schedule.warmup:g} more than all steps; "
            "shorten one of them"
        )


def check_best(run: RunConfig) -> None:
    """Raise UserError unless an evaluation falls on every step that a checkpoint is written at."""
    schedule = run.schedule
    if schedule.best_metric is None:
        return
    word = f"schedule.best_metric={schedule.best_metric}"
    if run.data.holdout == 0 and not has_held_out_source(run):
        raise UserError(f"{word}: data.holdout=0 keeps nothing aside to evaluate on; say a share above 0")
    save, evaluate = schedule.save_every, schedule.eval_every
    if save == "never":
        raise UserError(f"{word}: needs checkpoints; schedule.save_every=never writes none, say epoch or a number")
    fits = evaluate in (1, save) or (isinstance(save, int) and isinstance(evaluate, int) and save % evaluate == 0)
    if not fits:
        raise UserError(
            f"{word}: schedule.eval_every={evaluate} does not evaluate every checkpoint of schedule.save_every={save}; "
            f"say schedule.eval_every={save}"
        )


def check_profile(run: RunConfig) -> None:
    """Raise UserError for a window of steps that is none, or that the training does not reach."""
    schedule = run.schedule
    steps = schedule.profile_steps
    if not steps:
        return
    word = f"schedule.profile_steps=[{','.join(map(str, steps))}]"
    if len(steps) != 2 or not 1 <= steps[0] <= steps[1]:
        raise UserError(f"{word}: must be the first and the last step to record, as in [4,6]")
    if schedule.max_steps and steps[1] > schedule.max_steps:
        raise UserError(f"{word}: the training ends at schedule.max_steps={schedule.max_steps}; record earlier steps")
