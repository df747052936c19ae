"""The tokens that all conversations begin with, such as one system prompt: computed once for a micro-batch of them."""

from ftx.config.schema import RunConfig
from ftx.data.order import TrainingOrder
from ftx.data.store import RowStore

# Sharing gathers keys and values for every segment: below this share of all tokens that is no gain.
WORTH_SHARING = 0.05


def shared_prefix(rows: RowStore, least: float = 1) -> int:
    """How many tokens all conversations begin with, none of which predicts a supervised one; 0 where below ``least``.

    Every conversation keeps at least one token of its own.
    """
    tokens = rows.tokens
    _, first, _ = tokens.read(int(rows.members[0]))
    shared = len(first)
    for position in rows.members:
        _, ids, runs = tokens.read(int(position))
        # The run before the first supervised token; the last token of it predicts.
        most = max(min(shared, int(runs[0]) - 1), 0)
        same = ids[:most] == first[:most]
        shared = most if same.all() else int(same.argmin())
        if shared < least:
            return 0
    return shared


def prefix_to_share(run: RunConfig, order: TrainingOrder, micro_batches: int) -> int:
    """The tokens that a run's micro-batches share, 0 where it must not or would not pay.

    A causal model computes the same for them in every conversation, unless something random is drawn for each.
    ``micro_batches``: of all ranks, in an epoch.
    """
    conversations, tokens = len(order.items.members), int(order.items.token_counts()[:, 0].sum())
    if run.data.share_prefix == "never" or draws_for_each_token(run) or conversations <= micro_batches:
        return 0
    return shared_prefix(order.items, least=WORTH_SHARING * tokens / (conversations - micro_batches))


def draws_for_each_token(run: RunConfig) -> bool:
    """Whether training adds noise that no two conversations have in common."""
    dropout = run.method.name != "full" and run.method.lora.dropout > 0
    return dropout or run.method.neftune_alpha is not None
