"""``hardware.micro_batch=auto``: as many rows at once as a plan finds room for."""

from dataclasses import replace

from ftx.config.compose import ComposedRun, Composition
from ftx.config.parallel import ranks
from ftx.config.schema import RunConfig
from ftx.errors import UserError
from ftx.planning.advice import largest_micro_batch
from ftx.planning.memory import capacity_of
from ftx.planning.model_facts import architecture_of

AUTO = "auto"


def settled(composition: Composition) -> Composition:
    """The same runs with a number for each ``auto``."""
    return replace(composition, runs=tuple(_settled(composed) for composed in composition.runs))


def settle(run: RunConfig) -> RunConfig:
    """The run with a number of rows. Raises UserError where not even one row fits, or nobody knows what there is."""
    if run.hardware.micro_batch != AUTO:
        return run
    rows: int | None = 1
    if run.schedule.epochs != 0:
        if capacity_of(run) is None:
            raise UserError(
                "hardware.micro_batch=auto: nobody said how much memory a device has; say hardware.memory_gib=GIB, or "
                "a number of rows"
            )
        rows = largest_micro_batch(run, architecture_of(run))
    if rows is None:
        raise UserError(
            f"hardware.micro_batch=auto: not even one row of data.max_length={run.data.max_length} tokens fits on "
            f"{ranks(run)} × {run.hardware.gpu or run.hardware.device}; python -m ftx.plan with hardware.micro_batch=1 "
            "says what would help"
        )
    return replace(run, hardware=replace(run.hardware, micro_batch=rows))


def _settled(composed: ComposedRun) -> ComposedRun:
    return replace(composed, run=settle(composed.run))
