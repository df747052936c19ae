"""What two runs differ in, part by part, as their folders say; what is alike is left out."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ftx.config.keys import flat
from ftx.config.schema import RunConfig
from ftx.errors import UserError
from ftx.metrics_log import read
from ftx.run_folder import RunFolder

NOTHING = "—"
# Where a run is, not what it is.
PLACES = ("run_root", "data.cache")
# Of a description that is long, so much is shown.
MOST_LINES, MOST_CHARACTERS = 40, 60
# Of the last rows: what training ended with. Speeds and memory differ from run to run.
ENDS = ("step", "epoch", "train_loss", "eval_loss", "total_tokens", "supervised_tokens")
FILE_IN_DIFF = re.compile(r"^diff --git a/(\S+) ", re.MULTILINE)


@dataclass(frozen=True)
class Difference:
    """One thing and what each run has of it, as text; ``details`` are further lines."""

    name: str
    first: str
    second: str
    details: tuple[str, ...] = ()


def config_differences(first: RunFolder, second: RunFolder) -> list[Difference]:
    """Keys with other values, but for where the runs lie."""
    return _differences(*(_keys(folder.read_run()) for folder in (first, second)))


def data_differences(first: RunFolder, second: RunFolder) -> list[Difference]:
    """Fingerprints of data and starting weights, and what was counted when the data was prepared."""
    return _differences(*({**_fingerprints(folder), **_counts(folder)} for folder in (first, second)))


def code_differences(first: RunFolder, second: RunFolder) -> list[Difference]:
    """Commit, what was not committed, package versions, and the machine."""
    ours, theirs = (_provenance(folder) for folder in (first, second))
    facts = _differences(*(_facts_of_code(provenance) for provenance in (ours, theirs)))
    diffs = [provenance.get("dirty_diff") or "" for provenance in (ours, theirs)]
    if diffs[0] == diffs[1]:
        return facts
    return [*facts, Difference("uncommitted", _changed_files(diffs[0]), _changed_files(diffs[1]), _unified(*diffs))]


def metric_differences(first: RunFolder, second: RunFolder) -> list[Difference]:
    """Scores and where the training ended; of numbers how far they lie apart."""
    return _differences(*(_scores(folder) | _ends(folder) for folder in (first, second)))


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(name, _text(first.get(name)), _text(second.get(name)) + _apart(first.get(name), second.get(name)))
        for name in dict.fromkeys([*first, *second])
        if first.get(name) != second.get(name)
    ]


def _keys(run: RunConfig) -> dict[str, Any]:
    return {name: value for name, value in flat(run).items() if name not in PLACES}


def _provenance(folder: RunFolder) -> dict[str, Any]:
    return folder.read_provenance() if (folder.path / "provenance.json").is_file() else {}


def _fingerprints(folder: RunFolder) -> dict[str, str]:
    provenance = _provenance(folder)
    return {name: str(provenance.get(f"{name}_fingerprint") or "none")[:16] for name in ("data", "model")}


def _counts(folder: RunFolder) -> dict[str, int | str]:
    """Of the prepared set, where it is still kept and the data is still what it was."""
    from ftx.data.cache import is_complete, prepared_folder
    from ftx.data.fingerprint import data_fingerprint
    from ftx.data.prepare import read_counts

    run = folder.read_run()
    try:
        is_the_same = data_fingerprint(run) == _provenance(folder).get("data_fingerprint")
        prepared = prepared_folder(run)
    except (OSError, UserError):
        return {"counts": "not known: its data is no longer there"}
    if not is_the_same or not is_complete(prepared):
        return {"counts": "not known: its prepared data is no longer there"}
    return asdict(read_counts(prepared))


def _facts_of_code(provenance: Mapping[str, Any]) -> dict[str, Any]:
    packages = {f"package {name}": version for name, version in provenance.get("packages", {}).items()}
    return {name: provenance.get(name) for name in ("commit", "python", "host", "platform", "processor")} | packages


def _changed_files(diff: str) -> str:
    files = FILE_IN_DIFF.findall(diff)
    return f"{len(files)} files: {', '.join(files)}" if len(files) > 1 else ", ".join(files) or "nothing"


def _unified(first: str, second: str) -> tuple[str, ...]:
    """What the second's uncommitted lines have that the first's have not, and the other way round."""
    lines = list(difflib.unified_diff(first.splitlines(), second.splitlines(), "first", "second", n=1, lineterm=""))
    more = [f"    … {len(lines) - MOST_LINES} more lines: see dirty_diff in provenance.json"]
    return tuple([f"    {line}" for line in lines[:MOST_LINES]] + (more if len(lines) > MOST_LINES else []))


def _scores(folder: RunFolder) -> dict[str, float]:
    scores = folder.read_scores()
    return {f"{task}.{name}": entry["value"] for task, metrics in scores.items() for name, entry in metrics.items()}


def _ends(folder: RunFolder) -> dict[str, float]:
    """The newest value of each."""
    newest: dict[str, float] = {}
    for row in read(folder.metrics):
        newest |= {name: row[name] for name in ENDS if row.get(name) is not None}
    return {f"last {name}": value for name, value in newest.items()}


def _text(value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, default=_as_plain, ensure_ascii=False)
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"


def _as_plain(value: Any) -> Any:
    return asdict(value)


def _apart(first: Any, second: Any) -> str:
    """``  (+0.0125)`` for two measured numbers."""
    if isinstance(first, float) and isinstance(second, float):
        return f"  ({second - first:+.4g})"
    return ""
