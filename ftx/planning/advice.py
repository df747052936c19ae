"""What would make a run fit: combinations of changes, the cheapest ones first."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from ftx.config.checks import check_run
from ftx.config.model_schema import ArchitectureConfig
from ftx.config.parallel import ranks, strategy_of
from ftx.config.schema import RunConfig
from ftx.errors import UserError
from ftx.planning.machines import larger_machines, memory_in_all
from ftx.planning.memory import capacity_of, fits, host_memory_of, memory_of, rows_at_once

MOST_AT_ONCE, ANSWERS = 4, 3
# To compose takes a fraction of a second.
TRIES = 6


@dataclass(frozen=True)
class Change:
    """Some words, what they cost, and what becomes of a run by them.

    ``price`` orders: below 1 a little speed, below 4 more of it, from 4 on another result.
    """

    words: tuple[str, ...]
    cost: str
    price: float
    key: str
    """Of changes with the same one only one makes sense."""
    apply: Callable[[RunConfig], RunConfig]


@dataclass(frozen=True)
class WayOut:
    """Words that make the run fit, what they cost, and the bytes that it takes then."""

    words: tuple[str, ...]
    costs: tuple[str, ...]
    total: float


# Composes a run with some more words behind its own; raises UserError where these cannot be.
Follow = Callable[[Sequence[str]], RunConfig]


def ways_out(run: RunConfig, architecture: ArchitectureConfig, follow: Follow | None = None) -> list[WayOut]:
    """At most three, the cheapest first, none of which contains another; only one of them is other hardware.

    With ``follow`` each is what becomes of the run's real words with its own: an experiment's keys stay in force.
    """
    if capacity_of(run) is None:
        return []
    changes = [*_machines(run), *_changes(run)]
    chosen = sorted(
        (some for size in range(1, MOST_AT_ONCE + 1) for some in combinations(changes, size) if _go_together(some)),
        key=lambda some: sum(change.price for change in some),
    )
    found: list[tuple[frozenset[str], WayOut]] = []
    moved, tries = False, 0
    for some in chosen:
        words = frozenset(word for change in some for word in change.words)
        elsewhere = some[0].key == "machine"
        if len(found) == ANSWERS or tries == TRIES:
            break
        if (moved and elsewhere) or any(known <= words for known, _ in found):
            continue
        ordered = tuple(word for change in some for word in change.words)
        total = _fits(run, architecture, some)
        if total is not None and follow is not None:
            total, tries = _followed(architecture, follow, ordered), tries + 1
        if total is not None:
            found.append((words, WayOut(ordered, tuple(change.cost for change in some), total)))
            moved = moved or elsewhere
    return [way for _, way in found]


def largest_micro_batch(run: RunConfig, architecture: ArchitectureConfig) -> int | None:
    """The most rows at once that fit and still make up the global batch exactly; None where not even one fits."""
    share, left = divmod(run.schedule.global_batch_size, ranks(run))
    if left:
        return None
    for rows in sorted((rows for rows in range(1, share + 1) if share % rows == 0), reverse=True):
        if _total_that_fits(_with_rows(run, rows), architecture) is not None or capacity_of(run) is None:
            return rows
    return None


def _go_together(some: tuple[Change, ...]) -> bool:
    return len({change.key for change in some}) == len(some)


def _fits(run: RunConfig, architecture: ArchitectureConfig, some: tuple[Change, ...]) -> float | None:
    """The bytes that the changed run takes; None where it does not fit or cannot be."""
    for change in some:
        run = change.apply(run)
    total = _total_that_fits(run, architecture)
    if total is None:
        return None
    try:
        check_run(run)
    except UserError:
        return None
    return total


def _followed(architecture: ArchitectureConfig, follow: Follow, words: tuple[str, ...]) -> float | None:
    try:
        return _total_that_fits(follow(words), architecture)
    except UserError:
        return None


def _total_that_fits(run: RunConfig, architecture: ArchitectureConfig) -> float | None:
    total = memory_of(run, architecture).total
    return total if fits(run, total, host_memory_of(run, architecture)) else None


def _with_rows(run: RunConfig, rows: int) -> RunConfig:
    return _on(run, micro_batch=rows)


def _on(run: RunConfig, **values: object) -> RunConfig:
    return replace(run, hardware=replace(run.hardware, **values))  # type: ignore[arg-type]


def _with(run: RunConfig, **values: object) -> RunConfig:
    return replace(run, method=replace(run.method, **values))  # type: ignore[arg-type]


def _changes(run: RunConfig) -> Iterator[Change]:
    """Those that change anything about this run."""
    yield from _of_hardware(run)
    yield from _of_method(run)
    length = run.data.max_length // 2
    if length >= 512:
        yield Change(
            (f"data.max_length={length}",),
            "longer conversations are cut or left out",
            9,
            "length",
            lambda given: replace(given, data=replace(given.data, max_length=length)),
        )


def _of_hardware(run: RunConfig) -> Iterator[Change]:
    rows, hardware = rows_at_once(run), run.hardware
    if rows > 1:
        yield Change(
            ("hardware.micro_batch=1",),
            "the same steps in smaller parts, slower where rows are short",
            0.5,
            "rows",
            lambda given: _with_rows(given, 1),
        )
    if not hardware.activation_checkpointing:
        yield Change(
            ("hardware.activation_checkpointing=true",),
            "a third slower",
            1,
            "activations",
            lambda given: _on(given, activation_checkpointing=True),
        )
    if not hardware.activation_offload and not hardware.unified_memory:
        told = () if hardware.activation_checkpointing else ("hardware.activation_checkpointing=true",)
        yield Change(
            (*told, "hardware.activation_offload=true"),
            "half slower, and the host's memory",
            2,
            "activations",
            lambda given: _on(given, activation_checkpointing=True, activation_offload=True),
        )
    if ranks(run) > 1:
        for strategy, price in (("zero2", 0.3), ("zero3", 1.5)):
            if strategy != strategy_of(run):
                yield Change(
                    (f"hardware.strategy={strategy}",),
                    "more is exchanged between devices",
                    price,
                    "strategy",
                    lambda given, strategy=strategy: _on(given, strategy=strategy),  # type: ignore[misc]
                )


def _of_method(run: RunConfig) -> Iterator[Change]:
    method = run.method
    if "8bit" not in method.optimizer:
        yield Change(
            ("method.optimizer=adamw_8bit",),
            "moments in 8 bits",
            4,
            "optimizer",
            lambda given: _with(given, optimizer="adamw_8bit"),
        )
    if method.master_weights == "fp32" and method.name == "full" and run.hardware.precision == "bf16":
        yield Change(
            ("method.master_weights=none", "method.stochastic_rounding=true"),
            "all in bf16, rounded at random",
            5,
            "method",
            lambda given: _with(given, master_weights="none", stochastic_rounding=True),
        )
    # An experiment's own keys, or words, hold for another method too.
    masters = ("method.master_weights=fp32",) if method.master_weights == "none" else ()
    if method.name == "full":
        yield Change(("method=lora", *masters), "adapters instead of all weights", 6, "method", _adapters("lora"))
    if method.name != "qlora":
        yield Change(("method=qlora", *masters), "adapters on weights of 4 bits", 7, "method", _adapters("qlora"))


def _adapters(name: str) -> Callable[[RunConfig], RunConfig]:
    optimizer = {"optimizer": "paged_adamw_8bit"} if name == "qlora" else {}
    return lambda given: _with(given, name=name, master_weights="fp32", stochastic_rounding=False, **optimizer)


def _machines(run: RunConfig) -> Iterator[Change]:
    """Larger devices or more of them; as they come first, other changes are made to these."""
    for name, hardware in larger_machines(run.hardware):
        yield Change(
            (f"hardware={name}",),
            "other hardware",
            3 + memory_in_all(hardware) / 10_000,
            "machine",
            lambda given, hardware=hardware: replace(given, hardware=hardware),  # type: ignore[misc]
        )
