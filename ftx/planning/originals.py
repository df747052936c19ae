"""How the projects that the experiments come from had their runs computed, as far as they say so."""

from dataclasses import dataclass, replace

from ftx.config.schema import RunConfig


@dataclass(frozen=True)
class Original:
    """What a plan of it needs, beside what the experiment has of it."""

    strategy: str | None = None
    """None: one process."""
    liger: bool = False
    """Liger's kernels, whose loss never holds all logits."""
    pure: bool = False
    """All in bf16: nothing is held in 32 bits."""

    def describe(self) -> str:
        """For people."""
        parts = [self.strategy] if self.strategy else []
        parts += ["nothing in 32 bits"] if self.pure else []
        return ", ".join([*parts, "Liger's kernels and loss" if self.liger else "the logits of all positions at once"])


JUPYTER_AGENT = Original("zero2", liger=True)
OPEN_INSTRUCT = Original("zero3", liger=True)
# By the data set that a project trains on, from its own recipe.
ORIGINALS = {
    "jupyter-agent/jupyter-agent-dataset": JUPYTER_AGENT,
    "fancyzhx/ag_news": Original(pure=True),
    "allenai/tulu-3-sft-mixture": OPEN_INSTRUCT,
    "allenai/tulu-3-sft-olmo-2-mixture-0225": OPEN_INSTRUCT,
}


def original_of(run: RunConfig) -> Original:
    """Of projects that say nothing of these: the run's own strategy, and no kernels but transformers' own."""
    return ORIGINALS.get(str(run.data.path), Original())


def as_the_originals(run: RunConfig) -> RunConfig:
    """The run with its original's settings."""
    original = original_of(run)
    hardware = replace(run.hardware, strategy=original.strategy) if original.strategy else run.hardware
    pure = original.pure and run.method.name == "full"
    method = replace(run.method, master_weights="none") if pure else run.method
    kernels, loss = ("liger", "liger") if original.liger else ("none", "plain")
    return replace(run, hardware=hardware, method=method, model=replace(run.model, kernels=kernels, loss=loss))
