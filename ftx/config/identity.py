"""A run's identity: a hash over what changes its result, so that the same command finds the same folder."""

import hashlib
import json
from typing import Any

from ftx.config.evaluation_schema import EvaluationConfig
from ftx.config.keys import flat, schema_fields
from ftx.config.schema import SCHEMA_VERSION, RunConfig, SourceConfig

HASH_LENGTH = 8


def identity_keys(run: RunConfig) -> dict[str, Any]:
    """The keys that change the result and differ from the schema's defaults.

    Leaving defaults out means that a key added later, at its default, changes nobody's hash.
    """
    values, defaults = flat(run), flat(RunConfig())
    changed = {name: values[name] for name, _, belongs in schema_fields() if belongs and values[name] != defaults[name]}
    if run.model.weights != "random":  # it is there for plans
        changed = {name: value for name, value in changed.items() if not name.startswith("model.architecture.")}
    if run.schedule.best_metric:
        # These intervals say which checkpoints there are to choose from.
        changed |= {name: values[name] for name in ("schedule.save_every", "schedule.eval_every")}
    if run.schedule.epochs == 0 and run.evaluation.scaffold != EvaluationConfig().scaffold:
        # A model that is only scored, with and without the scaffold: two rows of a table, so two runs.
        changed["evaluation.scaffold"] = run.evaluation.scaffold
    if run.data.sources:
        changed["data.sources"] = {name: _source_keys(source) for name, source in run.data.sources.items()}
    return changed


def _source_keys(source: SourceConfig) -> dict[str, Any]:
    values, defaults = flat(source), flat(SourceConfig())
    return {name: value for name, value in values.items() if name != "path" and value != defaults[name]}


def run_hash(run: RunConfig, data_fingerprint: str, model_fingerprint: str) -> str:
    """Eight hexadecimal digits. A fingerprint stands for content, so a moved file or folder is still the same run."""
    keys = identity_keys(run)
    if model_fingerprint:
        keys["model.name"] = model_fingerprint
        keys.pop("model.revision", None)
    described = {"schema": SCHEMA_VERSION, "data": data_fingerprint, "keys": keys}
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]
