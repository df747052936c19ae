"""run.yaml: a resolved run as jobs get it, readable for as long as its schema version is known."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ftx.config.nodes import to_run
from ftx.config.schema import SCHEMA_VERSION, RunConfig
from ftx.errors import UserError


def run_to_yaml(run: RunConfig) -> str:
    """Every key of the run, resolved, with the version of the schema it was written under."""
    return f"schema_version: {SCHEMA_VERSION}\n" + OmegaConf.to_yaml(OmegaConf.structured(run))


def run_from_yaml(text: str, path: Path) -> RunConfig:
    """The run in ``text``; keys that came later take their defaults. ``path`` is named in errors."""
    stored: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(text))  # type: ignore[assignment]
    version = stored.pop("schema_version", None)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise UserError(f"{path}: schema_version={version} is not known to this ftx (it knows up to {SCHEMA_VERSION})")
    try:
        return to_run(stored)
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from error
