"""Cross-entropy straight from hidden states: the logits exist for a chunk of tokens at a time, never for all.

Each chunk's logits give its loss and, at once, its share of the gradients (as Liger's fused linear cross-entropy does:
Hsu et al., 2024), so the backward pass only multiplies by the incoming scalar and computes no logits a second time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy, linear

# Bytes of one chunk's logits in 32-bit floats. Smaller chunks add to the weight's gradient more often, which takes as
# long as computing it once they have fewer than about a hundred tokens.
CHUNK_BYTES = 256 << 20


@dataclass(frozen=True)
class AfterHead:
    """What a model does to the logits that its head returns: ``softcap · tanh(scale · logits / softcap)``."""

    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        if self.scale != 1:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits

    def slope(self, logits: torch.Tensor) -> torch.Tensor | float | None:
        """The derivative, where ``logits`` are what came out; None where nothing is done."""
        if self.softcap is None:
            return None if self.scale == 1 else self.scale
        return (logits / self.softcap).square_().neg_().add_(1).mul_(self.scale)


def token_losses(
    head: Callable[[torch.Tensor], torch.Tensor],
    hidden: torch.Tensor,
    targets: torch.Tensor,
    vocabulary: int,
    after: AfterHead,
) -> torch.Tensor:
    """The loss of every token, ``[tokens]``, without gradients; ``hidden`` is ``[tokens, hidden size]``."""
    losses = [hidden.new_zeros(0, dtype=torch.float32)]
    for part in chunks(len(targets), vocabulary):
        losses.append(cross_entropy(after(head(hidden[part]).float()), targets[part], reduction="none"))
    return torch.cat(losses)


def summed_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    after: AfterHead,
) -> torch.Tensor:
    """The loss summed over ``[tokens, hidden size]``, differentiable once by hidden states, weight and bias."""
    summed: torch.Tensor = _SummedLoss.apply(hidden, weight, bias, targets, after)
    return summed


def liger_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    after: AfterHead,
) -> torch.Tensor:
    """The same by Liger's kernel, which needs a GPU."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    kind = hidden.device.type
    narrow = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    states = hidden.to(narrow) * after.scale
    offset = None if bias is None else bias * after.scale
    loss: torch.Tensor = liger_fused_linear_cross_entropy(
        states, weight, targets, offset, reduction="sum", softcap=after.softcap, accum_dtype=torch.float32
    )
    return loss


def chunks(tokens: int, vocabulary: int) -> Iterator[slice]:
    """Slices of about equal size whose logits, in 32-bit floats, stay below ``CHUNK_BYTES``; at least a token each."""
    most = max(CHUNK_BYTES // (4 * vocabulary), 1)
    count = -(-tokens // most)
    size = -(-tokens // max(count, 1))
    for start in range(0, tokens, max(size, 1)):
        yield slice(start, min(start + size, tokens))


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        after: AfterHead,
    ) -> torch.Tensor:
        """Products are in autocast's type where it is on, else in that of the hidden states; sums in 32 bits or more.

        A frozen weight gets no gradient, and no memory for one.
        """
        kind = hidden.device.type
        narrow = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        wide = torch.promote_types(narrow, torch.float32)
        ctx.dtypes = [None if given is None else given.dtype for given in (hidden, weight, bias)]
        gradients = [
            torch.zeros_like(given, dtype=wide) if given is not None and needed else None
            for given, needed in zip((hidden, weight, bias), ctx.needs_input_grad, strict=False)
        ]
        by_hidden, by_weight, by_bias = gradients
        states, matrix = hidden.to(narrow), weight.to(narrow)
        added = None if bias is None else bias.to(narrow)
        summed = torch.zeros((), dtype=wide, device=hidden.device)
        with torch.autocast(kind, enabled=False):
            for part in chunks(len(targets), len(weight)):
                logits = after(linear(states[part], matrix, added).to(wide))
                slope = after.slope(logits)
                summed += _loss_and_gradient_(logits, targets[part])
                by_logits = (logits if slope is None else logits.mul_(slope)).to(narrow)
                if by_hidden is not None:
                    by_hidden[part] = by_logits @ matrix
                if by_weight is not None:
                    _add_product_(by_weight, by_logits.t(), states[part])
                if by_bias is not None:
                    by_bias += by_logits.sum(0, dtype=wide)
                del logits, by_logits  # or the next chunk's would come beside them
        ctx.gradients = gradients
        return summed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_sum: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the gradients of a chunked loss are given away by its first backward pass")
        gradients, ctx.gradients = ctx.gradients, None
        scaled = [
            None if gradient is None else gradient.mul_(by_sum).to(dtype)
            for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)
        ]
        return (*scaled, None, None)


def _loss_and_gradient_(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The summed loss; ``logits`` become its gradient, softmax minus one at the target, in their own memory."""
    largest = logits.amax(dim=1, keepdim=True)
    at_target = logits.gather(1, targets[:, None]) - largest
    total = logits.sub_(largest).exp_().sum(dim=1, keepdim=True)
    logits.div_(total).scatter_add_(1, targets[:, None], -torch.ones_like(at_target))
    return (total.log() - at_target).sum()


def _add_product_(into: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """``into += left @ right``, added up in the type of ``into``, which may be wider than that of the factors."""
    if into.dtype == left.dtype:
        into.addmm_(left, right)
    elif into.is_cuda:
        torch.addmm(into, left, right, out_dtype=into.dtype, out=into)
    else:
        into += left @ right
