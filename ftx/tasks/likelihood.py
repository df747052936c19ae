"""Which of a few answers is the likeliest, each question going through the model once.

The answers form a tree by their tokens: what they begin with alike is one branch. The tree follows the question in the
same row, and each of its tokens attends to the question and to what leads to it in the tree, so one forward pass gives
the log-likelihood of all answers.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ftx.data.conversation import Conversation
from ftx.data.tokenize import tokenize, tokenize_questions
from ftx.generation import Beginning, batches_by_length, left_padded, ready_to_answer
from ftx.progress import Progress
from ftx.tasks.task import Item, Keep, TaskInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# On a CPU more tokens at once are slower again.
CPU_TOKENS = 3072


@dataclass(frozen=True)
class Tree:
    """``tokens[i]`` hangs on node ``parents[i]``, -1 for the question.

    ``paths`` are each answer's nodes, but for those that all answers begin with: these set no answer apart.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, answers: Sequence[Sequence[int]]) -> "Tree":
        nodes: dict[tuple[int, ...], int] = {}
        parents: list[int] = []
        paths = []
        alike = len(os.path.commonprefix(list(map(list, answers))))  # noqa: RUF071 - of lists
        for answer in answers:
            path: list[int] = []
            for end in range(1, len(answer) + 1):
                beginning = tuple(answer[:end])
                if beginning not in nodes:
                    nodes[beginning] = len(nodes)
                    parents.append(path[-1] if path else -1)
                path.append(nodes[beginning])
            paths.append(tuple(path[alike:]))
        return cls(tuple(beginning[-1] for beginning in nodes), tuple(parents), tuple(paths))

    @property
    def fed(self) -> list[int]:
        """The nodes that something hangs on: only what comes after these has to be foretold."""
        return sorted({parent for parent in self.parents if parent >= 0})

    @property
    def depths(self) -> list[int]:
        """Of the fed nodes."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent < 0 else depths[parent] + 1)
        return [depths[node] for node in self.fed]

    def ancestry(self) -> torch.Tensor:
        """``[fed, fed]``: whether the row's node sees the column's, which leads to it or is itself."""
        seen = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen[self.fed][:, self.fed]

    @property
    def apart(self) -> list[int]:
        """The nodes of all paths, each once."""
        return sorted({node for path in self.paths for node in path})

    @property
    def foretold_at(self) -> list[int]:
        """Where each of these is foretold: 0 is the question's last token, from 1 on the fed nodes."""
        place = {node: number for number, node in enumerate(self.fed, 1)} | {-1: 0}
        return [place[self.parents[node]] for node in self.apart]


def likeliest_answers(given: TaskInput, items: Sequence[Item], answers: Mapping[str, str], keep: Keep) -> None:
    """Keep for each item the ``likelihoods``: the log-probability of every label's answer, its end included.

    It is that of what sets the answers apart, given what all of them begin with.
    """
    assert given.model is not None
    tokenizer, template = given.prepared.tokenizer, given.prepared.template
    asked = [Conversation(item.id, item.messages, item.tools) for item in items]
    questions = tokenize_questions(asked, tokenizer, template)
    tree = Tree.of(_answers_after(asked[0], list(answers.values()), given))
    done = 0
    with ready_to_answer(given.model), Progress("score classification", len(items), unit="item") as progress:
        beginning = Beginning.of(given.model, questions)
        for chosen in batches_by_length(questions, _at_once(given, questions)):
            began = time.time()
            asked_now = [questions[at] for at in chosen]
            found = log_likelihoods(
                given.model, asked_now, tree, beginning, pad_id=tokenizer.pad_token_id or 0
            ).tolist()
            ended = time.time()
            for at, row in zip(chosen, found, strict=True):
                likelihoods = dict(zip(answers, row, strict=True))
                keep({"id": items[at].id, "likelihoods": likelihoods, "began": began, "ended": ended})
            done += len(chosen)
            progress.show(done)


def _at_once(given: TaskInput, questions: Sequence[Sequence[int]]) -> int:
    """Questions of one pass: on a CPU no more than its caches hold well."""
    assert given.model is not None
    most = given.evaluation.batch_size
    if given.model.device.type != "cpu":
        return most
    return max(1, min(most, CPU_TOKENS // max(map(len, questions))))


def _answers_after(asked: Conversation, answers: Sequence[str], given: TaskInput) -> list[list[int]]:
    """The tokens of each answer up to its end of turn, as training has them after the question."""
    tokenizer, template = given.prepared.tokenizer, given.prepared.template
    whole = [
        Conversation(asked.id, (*asked.messages, {"role": "assistant", "content": text}), asked.tools)
        for text in answers
    ]
    return [
        one.input_ids[one.supervised.nonzero()[0][0] : one.supervised.nonzero()[0][-1] + 1].tolist()
        for one in tokenize(whole, tokenizer, template)
    ]


def log_likelihoods(
    model: "PreTrainedModel", questions: Sequence[Sequence[int]], tree: Tree, beginning: Beginning, *, pad_id: int
) -> torch.Tensor:
    """``[questions, answers]`` in nats, after what all answers begin with; to be called within ``ready_to_answer``."""
    device, rows, fed = model.device, len(questions), tree.fed
    apart, foretold_at = tree.apart, tree.foretold_at
    deciding = sorted(set(foretold_at))
    tokens, real = left_padded([beginning.rest(question) for question in questions], pad_id, model)
    nodes = torch.tensor(tree.tokens, device=device)
    depths = torch.tensor(tree.depths, device=device, dtype=real.dtype)
    places = torch.cat([(real.cumsum(dim=1) - 1).clamp(min=0), real.sum(dim=1, keepdim=True) + depths], dim=1)
    logits = model(
        input_ids=torch.cat([tokens, nodes[fed].expand(rows, -1)], dim=1),
        attention_mask=_mask(real.bool(), tree.ancestry().to(device), len(beginning.tokens), model.dtype),
        position_ids=len(beginning.tokens) + places,
        past_key_values=beginning.repeated(rows),
        logits_to_keep=tokens.shape[1] - 1 + torch.tensor(deciding, device=device),
        use_cache=beginning.cache is not None,
    ).logits.float()
    at = torch.tensor([deciding.index(place) for place in foretold_at], device=device)
    foretold = logits[:, at, nodes[apart]] - logits.logsumexp(dim=-1)[:, at]
    column = {node: number for number, node in enumerate(apart)}
    paths = [[column[node] for node in path] for path in tree.paths]
    return torch.stack([foretold[:, path].sum(dim=1) for path in paths], dim=1)


def _mask(real: torch.Tensor, ancestry: torch.Tensor, before: int, dtype: torch.dtype) -> torch.Tensor:
    """``[rows, 1, tokens, before + tokens]`` to add to attention scores; all see the ``before`` tokens in the cache.

    Padding sees itself, lest its softmax have nothing.
    """
    rows, length = real.shape
    size = len(ancestry)
    whole = length + size
    seen = torch.zeros(rows, whole, whole, dtype=torch.bool, device=real.device)
    seen[:, :length, :length] = torch.ones(length, length, dtype=torch.bool, device=real.device).tril() & real[:, None]
    seen[:, length:, :length] = real[:, None]
    seen[:, length:, length:] = ancestry
    seen |= torch.eye(whole, dtype=torch.bool, device=real.device)
    hidden = torch.cat([seen.new_zeros(rows, whole, before), ~seen], dim=2)
    return torch.zeros(hidden.shape, dtype=dtype, device=real.device).masked_fill(hidden, torch.finfo(dtype).min)[
        :, None
    ]
