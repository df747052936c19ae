"""How many processes compute a run, how they share it, and what does not go together there."""

from ftx.config.schema import RunConfig
from ftx.errors import UserError

# What hardware.strategy=auto stands for where there are several processes.
DEFAULT_STRATEGY = "zero2"
ONE_PROCESS = "one"


def ranks(run: RunConfig) -> int:
    """Processes over all nodes."""
    return run.hardware.nodes * run.hardware.processes_per_node


def micro_batch_of(run: RunConfig) -> int:
    """Rows that one device takes at once; raises ValueError where a plan has still to say how many."""
    return int(run.hardware.micro_batch)


def strategy_of(run: RunConfig) -> str:
    """``one`` for a single process, else how several share the work: ddp, zero1, zero2, zero3 or fsdp."""
    if ranks(run) == 1:
        return ONE_PROCESS
    return DEFAULT_STRATEGY if run.hardware.strategy == "auto" else run.hardware.strategy


def zero_stage(strategy: str) -> int:
    """1, 2 or 3; 0 for what is not DeepSpeed's."""
    return int(strategy.removeprefix("zero")) if strategy.startswith("zero") else 0


def check_parallel(run: RunConfig) -> None:
    """Raise UserError for a strategy that this run cannot be computed with."""
    strategy, hardware = strategy_of(run), run.hardware
    if strategy == "fsdp" and hardware.precision == "fp16":
        raise UserError(
            "hardware.precision=fp16: hardware.strategy=fsdp scales no losses; use hardware.precision=bf16 or "
            "hardware.strategy=zero3"
        )
    if strategy == "fsdp" and "8bit" in run.method.optimizer:
        raise UserError(
            f"method.optimizer={run.method.optimizer}: cannot step on the parts of hardware.strategy=fsdp; use "
            "hardware.strategy=zero2, or method.optimizer=adamw_torch_fused"
        )
    if run.method.name == "qlora" and strategy in ("zero3", "fsdp"):
        raise UserError(
            f"hardware.strategy={strategy}: shares out the weights, which method=qlora keeps in 4 bits; use "
            "hardware.strategy=zero2 or ddp"
        )
