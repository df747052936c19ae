"""The run as it is scored where it gets hardware of its own for that."""

from dataclasses import replace

from ftx.config.checks import check_run
from ftx.config.hardware_schema import HardwareConfig
from ftx.config.model_schema import ModelConfig
from ftx.config.parallel import ranks
from ftx.config.schema import RunConfig
from ftx.errors import UserError

# evaluation.hardware, for the job that trains to score as well.
OWN = "own"


def keeps_a_cluster_waiting(run: RunConfig) -> bool:
    """Whether scoring would hold many devices for one: an agent spends its time in notebooks."""
    many = run.launcher.name == "slurm" and ranks(run) > 1
    return many and run.schedule.epochs != 0 and "data_agent" in run.evaluation.tasks


def scoring_run(run: RunConfig, hardware: HardwareConfig) -> RunConfig:
    """``run`` in one process on ``hardware``, in its own precision where that device has it.

    Raises UserError for hardware that no run can be computed on.
    """
    scoring = replace(
        run,
        model=_model_on(hardware.device, run.model),
        hardware=replace(
            hardware,
            nodes=1,
            processes_per_node=1,
            gpus_per_node=1 if hardware.device == "cuda" else 0,
            strategy="auto",
            precision=_precision_on(hardware.device, run.hardware.precision),
            micro_batch=1,
        ),
    )
    try:
        check_run(scoring)
    except UserError as error:
        raise UserError(f"evaluation.hardware={run.evaluation.hardware}: {error}") from error
    return scoring


def _precision_on(device: str, precision: str) -> str:
    return "fp32" if device == "cpu" and precision == "fp16" else precision


def _model_on(device: str, model: ModelConfig) -> ModelConfig:
    """Without what only the other device computes with, none of which changes a result."""
    if device == "cpu":
        return replace(model, attention="auto", kernels="auto", loss="auto")
    return replace(model, attention="auto") if model.attention == "cpu" else model
