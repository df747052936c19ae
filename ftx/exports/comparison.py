"""How far what came out is from what was trained, and whether that is what its precision explains."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Of logits over the same tokens; each row is taken without its mean, which changes no probability."""

    positions: int
    relative: float
    """Root of the mean square of the difference, by that of the trained model's logits."""
    kl: float
    """Nats a token, of the exported model's distribution from the trained one's."""
    kl_max: float
    same_choice: float
    """Share of tokens after which both think the same one likeliest."""
    effect: float | None = None
    """As ``relative``: how far the training has moved the base; None where that is not known."""


@dataclass(frozen=True)
class Bound:
    """What a sound export stays under."""

    relative: float
    kl: float


# Both sides compute in 32 bits, so that of a merged model only the rounding of its weights is left; llama.cpp rounds
# activations to a file's own precision too. A matrix in a wrong place, or a wrong scaling, moves logits by their own
# size.
MERGED = {"fp32": Bound(1e-5, 1e-7), "fp16": Bound(5e-3, 1e-3), "bf16": Bound(3e-2, 1e-2)}
GGUF = {
    "f32": Bound(1e-4, 1e-6),
    "f16": Bound(5e-3, 1e-3),
    "bf16": Bound(3e-2, 1e-2),
    "q8_0": Bound(1e-1, 2e-2),
    "q6_k": Bound(2e-1, 5e-2),
    "q5_k_m": Bound(3e-1, 1e-1),
    "q4_k_m": Bound(4e-1, 2e-1),
}
# Of what training has changed, what merging may lose of it to rounding.
LOST_AT_MOST = 0.5
# Below it an effect is noise of 32-bit sums itself.
NO_EFFECT = 1e-5


@dataclass(frozen=True)
class Sample:
    """A held-out prompt, and what both answer."""

    id: str
    prompt: str
    trained: str
    exported: str


@dataclass(frozen=True)
class Findings:
    """All that a fresh process has compared. Each list names what differs, at most a few of them."""

    difference: Difference
    rendered: int
    renderings: list[str]
    tokenized: int
    normalized: int
    """Texts that the tokenizer's normalizer changes, compared as it leaves them: llama.cpp has no normalizers."""
    taken_for_control: list[str]
    """Ordinary tokens that llama.cpp takes for control tokens by their looks, as ``</s>``; texts with one are left
    out."""
    tokenizations: list[str]
    samples: list[Sample]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Findings":
        difference, samples = Difference(**found["difference"]), [Sample(**one) for one in found["samples"]]
        return cls(**{**found, "difference": difference, "samples": samples})


def compare_logits(
    trained: Sequence[np.ndarray], exported: Sequence[np.ndarray], base: Sequence[np.ndarray] | None = None
) -> Difference:
    """Each ``[tokens, vocabulary]``; a model may have more rows in its vocabulary than the other, which count not."""
    ours, theirs = _alike(trained, exported)
    kl, choices = [], []
    for one, other in zip(ours, theirs, strict=True):
        left, right = _log_softmax(one), _log_softmax(other)
        kl.append((np.exp(left) * (left - right)).sum(-1))
        choices.append(one.argmax(-1) == other.argmax(-1))
    divergence, same = np.concatenate(kl), np.concatenate(choices)
    return Difference(
        positions=len(divergence),
        relative=_relative(theirs, ours),
        kl=max(0.0, float(divergence.mean())),
        kl_max=max(0.0, float(divergence.max())),
        same_choice=float(same.mean()),
        effect=None if base is None else _relative(*_alike(base, trained)),
    )


def faults(found: Findings, bound: Bound) -> list[str]:
    """What a sound export would not show, in words; none where all is well."""
    difference = found.difference
    wrong = []
    if not difference.relative <= bound.relative:
        wrong.append(f"its logits are off by {difference.relative:.2g} of their size, {bound.relative:g} is allowed")
    if not difference.kl <= bound.kl:
        wrong.append(f"KL divergence {difference.kl:.2g} nats a token, {bound.kl:g} is allowed")
    effect = difference.effect
    if effect is not None and effect > NO_EFFECT and difference.relative > LOST_AT_MOST * effect:
        wrong.append(
            f"training has moved logits by {effect:.2g} of their size, and they are off by {difference.relative:.2g}: "
            "what was learned is lost"
        )
    if found.renderings:
        wrong.append(f"its chat template renders {found.renderings[0]} otherwise")
    if found.tokenizations:
        wrong.append(f"its tokens of {found.tokenizations[0]} are others")
    return wrong


def describe(found: Findings, bound: Bound) -> str:
    """In a line."""
    difference = found.difference
    effect = "" if difference.effect is None else f" (training moved them by {difference.effect:.2g})"
    normalized = f", {found.normalized:,} of them as its normalizer leaves them" if found.normalized else ""
    taken = found.taken_for_control
    apart = f", those with {' '.join(taken)} apart, which llama.cpp takes for control tokens," if taken else ""
    return (
        f"logits off by {difference.relative:.2g} of their size{effect}, at most {bound.relative:g}; "
        f"KL {difference.kl:.2g} nats a token, at most {bound.kl:g}; same choice after "
        f"{difference.same_choice:.1%} of {difference.positions:,} tokens; {found.rendered:,} renderings and "
        f"the tokens of {found.tokenized:,} texts{normalized}{apart} compared"
    )


def _alike(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    width = min(ours[0].shape[-1], theirs[0].shape[-1])
    return tuple([one[..., :width].astype(np.float64) for one in side] for side in (ours, theirs))  # type: ignore[return-value]


def _relative(moved: Sequence[np.ndarray], still: Sequence[np.ndarray]) -> float:
    apart = sum(float((_centred(one - other) ** 2).sum()) for one, other in zip(moved, still, strict=True))
    size = sum(float((_centred(one) ** 2).sum()) for one in still)
    return float(np.sqrt(apart / size)) if size else float("nan")


def _centred(logits: np.ndarray) -> np.ndarray:
    centred: np.ndarray = logits - logits.mean(-1, keepdims=True)
    return centred


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
