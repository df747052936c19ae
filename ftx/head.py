"""The loss inside the model: its head turns hidden states and targets into a loss where the logits would be large.

It happens within the model's forward, where sharded and tied weights are gathered. The head is called once a forward
whichever way is taken, so ranks may take different ones.
"""

import importlib.util
import logging
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from ftx.chunked_loss import AfterHead, liger_loss, summed_loss, token_losses
from ftx.errors import UserError

log = logging.getLogger(__name__)

# What a batch calls the targets, one for each of ``logits_to_keep``; Trainer knows the name, and counts them.
TARGETS = "shift_labels"
# Up to this many bytes of logits, in 32-bit floats, the plain way is as good.
PLAIN_UP_TO = 64 << 20

# What models of transformers do behind the head besides softcapping and scaling: config keys, and what turns them off.
UNKNOWN_AFTER_HEAD = {
    "lm_head_multiplier": (None, 1.0),
    "output_multiplier": (None, 1.0),
    "logits_soft_cap": (None,),
    "output_logit_soft_cap": (None,),
    "unpadded_vocab_size": (None,),
}


def choose(wanted: str, *, targets: int, vocabulary: int, on_gpu: bool, liger: bool) -> str:
    """How the loss of so many targets is computed; ``wanted`` is model.loss."""
    if wanted != "auto" and targets:
        return wanted
    if targets * vocabulary * 4 <= PLAIN_UP_TO:
        return "plain"
    return "liger" if on_gpu and liger else "chunked"


def loss_in_head(model: torch.nn.Module, wanted: str = "auto") -> None:
    """Let ``model`` (with its adapters, if any) take ``TARGETS`` and return a loss instead of large logits.

    With targets, ``outputs.loss`` is then the sum over them while gradients are computed, and one loss for each of them
    otherwise; ``outputs.logits`` are as ever where that way is plain. Without targets nothing is changed. Done once for
    a model, before anything wraps it; raises UserError for a way that cannot be taken here.
    """
    causal = next(module for module in model.modules() if isinstance(module, PreTrainedModel))
    if not isinstance(getattr(causal.get_output_embeddings().forward, "__self__", None), _LossHead):
        _LossHead(model, causal, wanted)


def losses_of(outputs: Any, targets: torch.Tensor, reduction: str) -> torch.Tensor:
    """What ``loss_in_head`` has a model return, as a loss: for each target (``none``) or over all of them (``sum``)."""
    if outputs.loss is None:
        return cross_entropy(outputs.logits[0].float(), targets, reduction=reduction)
    loss: torch.Tensor = outputs.loss
    return loss.sum() if reduction == "sum" else loss


def has_liger() -> bool:
    """Whether Liger's kernels are installed."""
    return importlib.util.find_spec("liger_kernel") is not None


class _LossHead:
    """Stands in front of a model's head; its methods are the hooks, so that a copy of the model has one of its own."""

    def __init__(self, model: torch.nn.Module, causal: PreTrainedModel, wanted: str) -> None:
        self._causal, self._head = causal, causal.get_output_embeddings()
        self._vocabulary = int(causal.config.get_text_config().vocab_size)
        self._after, self._set_neutral = _after_head(causal)
        self._wanted = _possible(wanted, self._head, self._after)
        self._plain = self._head.forward
        self._head.forward = self._forward
        self._targets: torch.Tensor | None = None
        self._loss: torch.Tensor | None = None
        self._before: list[tuple[Any, str, Any]] = []
        self._verified = False
        model.register_forward_pre_hook(self._take_targets, with_kwargs=True)
        model.register_forward_hook(self._give_loss, with_kwargs=True, always_call=True)

    def _take_targets(
        self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self._loss, self._targets = None, kwargs.get(TARGETS)
        return args, {name: value for name, value in kwargs.items() if name != TARGETS}

    def _forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The head's forward: ``[1, targets, hidden size]`` to logits, or to losses ``[1, targets or 1, 1]``."""
        if self._targets is None or self._after is None:
            return self._plain(hidden)
        if hidden.shape[1] != len(self._targets):
            raise ValueError(f"{len(self._targets)} targets, but the head got {hidden.shape[1]} positions")
        if torch.is_grad_enabled():
            loss = self._summed(hidden[0], self._targets, self._after)
        else:
            loss = token_losses(self._plain, hidden[0], self._targets, self._vocabulary, self._after)
        if loss is None:
            return self._plain(hidden)
        self._loss = loss
        for owner, name, neutral in self._set_neutral:
            self._before.append((owner, name, getattr(owner, name)))
            setattr(owner, name, neutral)
        return loss.view(1, -1, 1)

    def _summed(self, hidden: torch.Tensor, targets: torch.Tensor, after: AfterHead) -> torch.Tensor | None:
        """None where plain logits do."""
        way = choose(
            self._wanted,
            targets=len(targets),
            vocabulary=self._vocabulary,
            on_gpu=hidden.is_cuda,
            liger=has_liger(),
        )
        if way == "plain":
            return None
        of = liger_loss if way == "liger" else summed_loss
        return of(hidden, self._head.weight, self._head.bias, targets, after)

    def _give_loss(
        self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any
    ) -> CausalLMOutput | None:
        """Also called, with no outputs, where the forward raised."""
        loss, self._loss, self._targets = self._loss, None, None
        for owner, name, value in self._before:
            setattr(owner, name, value)
        self._before.clear()
        if loss is None or outputs is None:
            return None
        # What came out, since whatever shards the head's weights hooks into its output.
        given = outputs.logits.view(loss.shape)
        if not self._verified and loss.any():
            self._verify(given, loss)
        return CausalLMOutput(loss=given)

    def _verify(self, given: torch.Tensor, loss: torch.Tensor) -> None:
        """Once: a model that does something to its logits which is not in ``_after_head`` would do it to the loss."""
        if not torch.allclose(given, loss, rtol=1e-6, equal_nan=True):
            kind = type(self._causal).__name__
            raise UserError(
                f"model.loss={self._wanted}: {kind} changes its logits behind the head; say model.loss=plain"
            )
        self._verified = True


def _possible(wanted: str, head: torch.nn.Module, after: AfterHead | None) -> str:
    """``wanted`` against what this model and this machine can do."""
    if wanted == "liger" and not has_liger():
        raise UserError("model.loss=liger: liger-kernel is not installed; install ftx[gpu], or say model.loss=auto")
    if after is None:
        reason = "it does something of its own to the logits behind its head"
    elif type(head) is not torch.nn.Linear:
        reason = f"its head is no plain matrix but a {type(head).__name__}"
    else:
        return wanted
    if wanted == "auto":
        log.warning("the logits of all supervised tokens of a micro-batch will be in memory at once: %s", reason)
    elif wanted != "plain":
        raise UserError(f"model.loss={wanted}: not with this model, {reason}; say model.loss=plain")
    return "plain"


def _after_head(causal: PreTrainedModel) -> tuple[AfterHead | None, list[tuple[Any, str, Any]]]:
    """What the model does to its logits, None where that is not known; and what to set, where, so that it does not."""
    config = causal.config
    if any(getattr(config, name, None) not in neutral for name, neutral in UNKNOWN_AFTER_HEAD.items()):
        return None, []
    scale, softcap = 1.0, getattr(config, "final_logit_softcapping", None)
    neutral: list[tuple[Any, str, Any]] = []
    if softcap is not None:
        neutral.append((config, "final_logit_softcapping", None))
    factor: Any = getattr(causal, "logit_scale", None)  # Cohere's
    if factor is not None:
        scale = float(factor)
        neutral.append((causal, "logit_scale", 1.0))
    elif getattr(config, "logits_scaling", None) is not None:
        if not config.model_type.startswith("granite"):
            return None, []
        scale = 1 / config.logits_scaling
        neutral.append((config, "logits_scaling", 1.0))
    return AfterHead(scale, softcap), neutral
