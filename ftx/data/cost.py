"""What rows cost a device, so that the rows of one step can be shared out evenly among many."""

from dataclasses import dataclass

import numpy as np

from ftx.data.store import RowStore

# Where a model's dimensions are not known: about those of a 4-billion-parameter model.
USUAL_CROSSOVER = 24_000.0


@dataclass(frozen=True)
class Cost:
    """A segment of n tokens costs n + n² / crossover, in units of one token's matrix products.

    At ``crossover`` tokens attention costs as much as all matrix products together.
    """

    crossover: float = USUAL_CROSSOVER

    def of_segments(self, lengths: np.ndarray) -> np.ndarray:
        tokens = lengths.astype(np.float64)
        return tokens + tokens * tokens / self.crossover

    def of_rows(self, rows: RowStore) -> np.ndarray:
        return rows.sums(self.of_segments(rows.tokens.lengths))


def cost_of_architecture(*, hidden: int, intermediate: int, heads: int, key_value_heads: int, head_dim: int) -> Cost:
    """From a transformer layer's dimensions.

    Forward, a token takes 2 FLOPs for each parameter of the layers' matrices, and causal attention over n tokens takes
    2 · n · heads · head_dim for each layer (scores and values, half of them masked): n is the crossover where the two
    are equal. The head, which sees supervised tokens only, is left out.
    """
    attention = 2 * hidden * head_dim * (heads + key_value_heads)
    return Cost((attention + 3 * hidden * intermediate) / (heads * head_dim))


def cost_of_model(config: object) -> Cost:
    """From a model's configuration in Hugging Face's terms; the usual cost where it lacks a dimension."""
    names = ("hidden_size", "intermediate_size", "num_attention_heads")
    hidden, intermediate, heads = (getattr(config, name, None) for name in names)
    if not (hidden and intermediate and heads):
        return Cost()
    return cost_of_architecture(
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        key_value_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or hidden // heads,
    )
