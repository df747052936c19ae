"""Which conversations are learned from and which are kept aside."""

import random
from collections.abc import Sequence

from ftx.data.conversation import Conversation


def split(
    conversations: Sequence[Conversation], *, holdout: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Shuffled by ``seed``, then whole groups kept aside until about ``holdout`` of the conversations are.

    At least one conversation stays on each side where there are two groups and ``holdout`` is above 0.
    """
    groups: dict[str, list[Conversation]] = {}
    for conversation in conversations:
        groups.setdefault(conversation.group or conversation.id, []).append(conversation)
    names = list(groups)
    random.Random(seed).shuffle(names)
    wanted = holdout * len(conversations)
    aside: list[Conversation] = []
    train: list[Conversation] = []
    for name in names:
        enough = len(aside) >= max(wanted, 1) or (name == names[-1] and not train)
        (train if holdout == 0 or enough else aside).extend(groups[name])
    random.Random(seed).shuffle(train)
    return train, aside
