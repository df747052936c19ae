"""In how many bytes each kind of number of a training is held."""

from dataclasses import dataclass

from ftx.config.parallel import ONE_PROCESS, strategy_of
from ftx.config.schema import RunConfig

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True)
class Numbers:
    """Bytes of one number each."""

    base: int
    """Of the weights that the model computes with, but those that 4 bits are enough for."""
    norm: int
    """Of its norms' weights."""
    trained: int
    """Of what is trained, where the model holds it."""
    stream: int
    """Of hidden states between the layers."""
    compute: int
    """Of matrices as they are multiplied."""
    shared_out: bool
    """Whether ZeRO keeps 32-bit weights of its own, in parts, besides."""

    @property
    def casts(self) -> bool:
        """Whether autocast makes shorter copies of the weights as they are used."""
        return self.trained > self.compute


def numbers_of(run: RunConfig) -> Numbers:
    """As ``ftx.precision``, ``ftx.adapters`` and ``ftx.strategies`` have them."""
    short, strategy = BYTES[run.hardware.precision], strategy_of(run)
    if strategy.startswith("zero"):
        return Numbers(short, short, short, short, short, shared_out=True)
    if strategy == "fsdp":  # sharded as a process alone holds them, gathered in the precision that computes
        held = 4 if run.method.name == "full" else short
        return Numbers(held, held, 4, short, short, shared_out=False)
    assert strategy in (ONE_PROCESS, "ddp")
    masters = 4 if run.method.master_weights == "fp32" else short
    if run.method.name == "full":
        return Numbers(masters, masters, masters, masters, short, shared_out=False)
    return Numbers(short, masters, masters, short, short, shared_out=False)
