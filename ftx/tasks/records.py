"""The records of a task on disk: each the moment that it is there, so that nothing is asked twice."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftx.environment import Rank
from ftx.tasks.task import Item, Record
from ftx.writing import of_this_attempt

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Records:
    """``records-*.jsonl`` of one task: each rank, and each start of the run, writes into a file of its own.

    ``settings`` are what the records depend on besides their items: one made with others does not count.
    """

    folder: Path
    settings: dict[str, Any]
    rank: Rank = field(default_factory=Rank)

    def keep(self, item: Item, record: Record) -> None:
        """A line of its own, also behind one that a killed process did not end; complete, or it does not count."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"of": self._asked(item), "record": record}, ensure_ascii=False)
        with (self.folder / f"{of_this_attempt(f'records-{self.rank.index}')}.jsonl").open("ab") as file:
            file.write(f"\n{line}\n".encode())

    def of(self, items: Sequence[Item]) -> dict[str, Record]:
        """Those of ``items`` that are there, by id."""
        return self._among({self._asked(item): item.id for item in items})

    def share(self, items: Sequence[Item]) -> list[Item]:
        """What is left for this rank to do: every so many-th item, whatever the others have done already."""
        there = self.of(items)
        return [item for item in items[self.rank.index :: self.rank.count] if item.id not in there]

    def all_of(self, items: Sequence[Item], look: Callable[[int], None]) -> list[Record]:
        """One for each item in their order, as soon as the last rank has brought its own.

        ``look`` is called with the number of those that are there, and raises where it is in vain to wait.
        """
        asked = {self._asked(item): item.id for item in items}
        while len(there := self._among(asked)) < len(items):
            look(len(there))
            time.sleep(POLL_SECONDS)
        return [there[item.id] for item in items]

    def _among(self, asked: dict[str, str]) -> dict[str, Record]:
        found: dict[str, Record] = {}
        for file in sorted(self.folder.glob("records-*.jsonl")):
            for line in file.read_bytes().splitlines():
                kept = _read(line)
                if kept is not None and kept["of"] in asked:
                    found[asked[kept["of"]]] = kept["record"]
        return found

    def _asked(self, item: Item) -> str:
        """What says that a record is the outcome of just this: not of a question that has changed since."""
        asked = [item.id, item.messages, item.tools, self.settings]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _read(line: bytes) -> dict[str, Any] | None:
    """None for an empty line, and for one that a killed process did not end."""
    try:
        kept = json.loads(line)
    except ValueError:
        return None
    return kept if isinstance(kept, dict) and {"of", "record"} <= set(kept) else None
