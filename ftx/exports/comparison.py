"""How far what came out is from what was trained, and whether that is what its precision explains."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

# Rows of logits that are compared at once, in 64 bits.
ROWS = 64


@dataclass(frozen=True)
class Difference:
    """Of logits over the same tokens; each row is taken without its mean, which changes no probability.

    Sound are those of the trained model with its adapter in its weights, each of them rounded once to the type that the
    run's weights have: what is exported is made of these, so that only its own precision is between.
    """

    positions: int
    relative: float
    """Root of the mean square of the difference, by that of the sound logits."""
    kl: float
    """Nats a token, of the exported model's distribution from the sound one."""
    kl_max: float
    same_choice: float
    """Share of tokens after which both think the same one likeliest."""
    effect: float | None = None
    """As ``relative``: how far the training has moved the base; None where that is not known."""
    learned: float | None = None
    """How much of that way the exported model has gone, 1 where all of it."""
    aside: float | None = None
    """As ``relative``: how far it is from any point of that way, which is noise of its precision."""
    kl_of_base: float | None = None
    """As ``kl``, from the base."""
    rounding: float | None = None
    """As ``relative``, of the trained model before its adapter was rounded into the weights."""
    far: float | None = None
    """As ``relative``, at the end of the one long text only, of ``far_tokens``."""
    near: float | None = None
    """And without it."""
    far_tokens: int = 0


@dataclass(frozen=True)
class Bound:
    """What a sound export stays under."""

    relative: float
    kl: float


# Both sides compute in 32 bits, and peft's sums are rounded to the same weights: 16-bit ones but for a few, where sums
# in 32 bits lie at the border of two.
MERGED = {"fp32": Bound(1e-5, 1e-7), "fp16": Bound(1e-3, 1e-5), "bf16": Bound(1e-3, 1e-5)}
# llama.cpp rounds activations to a file's own precision too. A matrix in a wrong place, or a wrong scaling, moves
# logits by their own size.
GGUF = {
    "f32": Bound(1e-4, 1e-6),
    "f16": Bound(5e-3, 1e-3),
    "bf16": Bound(3e-2, 1e-2),
    "q8_0": Bound(1e-1, 2e-2),
    "q6_k": Bound(2e-1, 5e-2),
    "q5_k_m": Bound(3e-1, 1e-1),
    "q4_k_m": Bound(4e-1, 2e-1),
}
# Sums in 16 bits are off by this, beside llama.cpp's; two models of the same weights are off alike.
COMPUTED_SHORT = Bound(3e-2, 1e-2)
# Of what training has changed, what merging may lose of it to rounding.
LOST_AT_MOST = 0.5
# Below it an effect is noise of 32-bit sums itself.
NO_EFFECT = 1e-5
# Noise lies mostly across the way that training went, and some of it along: a third of that way was seen where all of
# the noise is half as long again as the way. So much may be missing, or be too much, and twice that where there is most
# noise.
LEARNED_OFF_BY, NOISE_AT_MOST = 0.25, 1.5
# How much further off a sound export may be after a long text than after short ones, and from what on that says
# something.
FAR_AT_MOST, FAR_FROM = 1.6, 1e-3


def bound_of(export: str, precision: str, computed_in: str = "float32") -> Bound:
    """``export``: as exports.json calls it, of a run of this ``hardware.precision``."""
    merged, kind = MERGED[precision], GGUF.get(export.removeprefix("gguf-"))
    if kind is None:
        return merged
    computed = merged if computed_in == "float32" else COMPUTED_SHORT
    return Bound(max(computed.relative, kind.relative), max(computed.kl, kind.kl))


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
    special: list[str]
    """What is wrong with the tokens that begin and end, in words."""
    prompts: list[str]
    """Conversations whose question the program that the export is for cuts otherwise."""
    samples: list[Sample]
    computed_in: str = "float32"
    """What both sides were, where memory was short: ``bfloat16`` or ``float16``; llama.cpp has types of its own."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Findings":
        difference, samples = Difference(**found["difference"]), [Sample(**one) for one in found["samples"]]
        return cls(**{**found, "difference": difference, "samples": samples})


def compare_logits(
    sound: Sequence[np.ndarray],
    exported: Sequence[np.ndarray],
    base: Sequence[np.ndarray] | None = None,
    trained: Sequence[np.ndarray] | None = None,
    far_tokens: int = 0,
) -> Difference:
    """Each ``[tokens, vocabulary]``; a model may have more rows in its vocabulary than the other, which count not.

    ``trained``: before rounding. ``far_tokens``: after how many the last of them ends, where it is a long text.
    """
    totals = np.sum([_sums(*rows) for rows in _rows(sound, exported, base or sound, trained or sound)], axis=0)
    size, apart, way, along, rounding, kl, kl_of_base, same, positions = map(float, totals)
    found = Difference(
        positions=int(positions),
        relative=_root(apart, size),
        kl=max(0.0, kl / positions),
        kl_max=max(0.0, *(float(_kl(one, other).max()) for one, other in _rows(sound, exported))),
        same_choice=same / positions,
        rounding=None if trained is None else _root(rounding, size),
    )
    if base is not None:
        # |x - b|² = |x - s|² + 2 (x - s)(s - b) + |s - b|², with x exported, s sound and b base.
        learned = 1 + along / way if way else 1.0
        across = max(0.0, apart - (along**2 / way if way else 0.0))
        found = replace(
            found,
            effect=_root(way, size),
            learned=learned,
            aside=_root(across, size),
            kl_of_base=max(0.0, kl_of_base / positions),
        )
    if far_tokens:
        near, far = (compare_logits(sound[part], exported[part]) for part in (slice(-1), slice(-1, None)))
        found = replace(found, far=far.relative, near=near.relative, far_tokens=far_tokens)
    return found


def faults(found: Findings, bound: Bound) -> list[str]:
    """What a sound export would not show, in words; none where all is well."""
    difference = found.difference
    wrong = []
    if not difference.relative <= bound.relative:
        wrong.append(f"its logits are off by {difference.relative:.2g} of their size, {bound.relative:g} is allowed")
    if not difference.kl <= bound.kl:
        wrong.append(f"KL divergence {difference.kl:.2g} nats a token, {bound.kl:g} is allowed")
    far, near = difference.far, difference.near
    if far is not None and near is not None and not far <= max(FAR_FROM, FAR_AT_MOST * near):
        wrong.append(
            f"after {difference.far_tokens:,} tokens its logits are off by {far:.2g} of their size, after fewer by "
            f"{near:.2g}"
        )
    wrong += _lost(difference)
    wrong += found.special
    if found.renderings:
        wrong.append(f"its chat template renders {found.renderings[0]} otherwise")
    if found.tokenizations:
        wrong.append(f"its tokens of {found.tokenizations[0]} are others")
    if found.prompts:
        wrong.append(f"its tokens of the question {found.prompts[0]} are not those that it was trained with")
    return wrong


def _lost(difference: Difference) -> list[str]:
    """Of what was learned."""
    effect, rounding, learned = difference.effect, difference.rounding, difference.learned
    if effect is None or effect <= NO_EFFECT:
        return []
    wrong = []
    if rounding is not None and rounding > LOST_AT_MOST * effect:
        wrong.append(
            f"training has moved logits by {effect:.2g} of their size, and rounding its weights by {rounding:.2g}: "
            "what was learned is lost"
        )
    off_by = LEARNED_OFF_BY * max(1.0, 2 * (difference.aside or 0.0) / effect / NOISE_AT_MOST)
    if learned is not None and shows(difference) and not abs(learned - 1) <= off_by:
        wrong.append(
            f"it has {learned:.0%} of what training has moved logits by, {1 - off_by:.0%} to {1 + off_by:.0%} is "
            "allowed: it is not the tuned model"
        )
    if difference.kl_of_base is not None and shows(difference) and not difference.kl < difference.kl_of_base:
        wrong.append(
            f"KL divergence {difference.kl:.2g} nats a token from the tuned model and {difference.kl_of_base:.2g} from "
            "the base: it is not the tuned one"
        )
    return wrong


def shows(difference: Difference) -> bool:
    """Whether what training has changed is more than the noise of the export's precision."""
    effect, aside = difference.effect, difference.aside
    return effect is not None and aside is not None and effect > NO_EFFECT and aside <= NOISE_AT_MOST * effect


def describe(found: Findings, bound: Bound) -> str:
    """In a line."""
    difference = found.difference
    normalized = f", {found.normalized:,} of them as its normalizer leaves them" if found.normalized else ""
    taken = found.taken_for_control
    apart = f", those with {' '.join(taken)} apart, which llama.cpp takes for control tokens," if taken else ""
    far = f", {difference.far:.2g} after {difference.far_tokens:,} tokens" if difference.far is not None else ""
    return (
        f"logits off by {difference.relative:.2g} of their size{far}, at most {bound.relative:g}; "
        f"{_describe_effect(difference)}KL {difference.kl:.2g} nats a token, at most {bound.kl:g}; same choice after "
        f"{difference.same_choice:.1%} of {difference.positions:,} tokens; {found.rendered:,} renderings and "
        f"the tokens of {found.tokenized:,} texts{normalized}{apart} compared"
        + ("" if found.computed_in == "float32" else f", in {found.computed_in}, as memory is short for 32 bits")
    )


def _describe_effect(difference: Difference) -> str:
    effect = difference.effect
    if effect is None:
        return "how far training moved them is not known, as the base is not there; "
    if effect <= NO_EFFECT:
        return "training moved them by nothing; "
    rounding = f", rounding its weights by {difference.rounding:.2g}" if difference.rounding is not None else ""
    if not shows(difference):
        return (
            f"training moved them by {effect:.2g}{rounding}: too little to tell from this precision's own noise of "
            f"{difference.aside:.2g} whether it is there; "
        )
    return f"training moved them by {effect:.2g}{rounding}, of which it has {difference.learned:.1%}; "


def _rows(*sides: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
    """Some rows of all at once, in 64 bits, as wide as the narrowest is."""
    width = min(side[0].shape[-1] for side in sides)
    for same in zip(*sides, strict=True):
        for at in range(0, len(same[0]), ROWS):
            yield tuple(one[at : at + ROWS, :width].astype(np.float64) for one in same)


def _sums(sound: np.ndarray, exported: np.ndarray, base: np.ndarray, trained: np.ndarray) -> np.ndarray:
    apart, way = _centred(exported - sound), _centred(sound - base)
    return np.array(
        [
            (_centred(sound) ** 2).sum(),
            (apart**2).sum(),
            (way**2).sum(),
            (apart * way).sum(),
            (_centred(trained - sound) ** 2).sum(),
            _kl(sound, exported).sum(),
            _kl(base, exported).sum(),
            (sound.argmax(-1) == exported.argmax(-1)).sum(),
            len(sound),
        ]
    )


def _kl(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    left, right = _log_softmax(one), _log_softmax(other)
    divergence: np.ndarray = (np.exp(left) * (left - right)).sum(-1)
    return divergence


def _root(part: float, whole: float) -> float:
    return float(np.sqrt(part / whole)) if whole else float("nan")


def _centred(logits: np.ndarray) -> np.ndarray:
    centred: np.ndarray = logits - logits.mean(-1, keepdims=True)
    return centred


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
