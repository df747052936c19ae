"""What of a run may be read by everybody: what it is, not where it ran; no path, no credential.

Groups that say where and how a run was carried out are left out whole. Of a path only its last part stays, of an
address no user and password, and whatever looks like a token becomes stars.
"""

import re
from pathlib import PurePath
from typing import Any

from ftx.config.keys import flat
from ftx.config.schema import RunConfig
from ftx.config.stored import run_to_yaml
from ftx.redaction import redacted
from ftx.run_folder import RunFolder

PRIVATE = (
    "run_root",
    "fresh",
    "data.cache",
    "evaluation.url",
    "tracking",
    "launcher",
    "export",
    "expected",
)
# A path from the root or from home on, within a longer text; OWNER/NAME and addresses are none.
PATH = re.compile(r"(?<![\w./~-])~?/(?:[^\s,'\"\]}/]+/)*([^\s,'\"\]}/]+)/?")


def public(value: Any) -> Any:
    """A setting's value, or a mapping or list of them, as everybody may read it."""
    if isinstance(value, dict):
        return {name: public(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [public(one) for one in value]
    if not isinstance(value, str):
        return value
    return PurePath(value).name if value.startswith(("/", "~", "./", "../")) else PATH.sub(r"\1", redacted(value))


def public_settings(run: RunConfig) -> dict[str, Any]:
    """The keys that differ from the schema's defaults."""
    values, defaults = flat(run), flat(RunConfig())
    return {
        name: public(_plain(value))
        for name, value in values.items()
        if value != defaults[name] and not is_private(name)
    }


def public_yaml(run: RunConfig) -> str:
    """run.yaml without the private groups."""
    from omegaconf import OmegaConf

    whole: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(run_to_yaml(run)))  # type: ignore[assignment]
    return OmegaConf.to_yaml(OmegaConf.create(public(_without_private(whole, ""))))


def public_words(folder: RunFolder) -> list[str]:
    """The words of the command line that the run came from; paths as their last part."""
    file = folder.path / "overrides.txt"
    words = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    shown = []
    for word in words:
        key, equals, value = word.partition("=")
        if not is_private(key.lstrip("+~")):
            shown.append(f"{key}{equals}{public(value)}")
    return shown


def is_private(key: str) -> bool:
    return any(key == private or key.startswith(f"{private}.") for private in PRIVATE)


def _without_private(tree: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {
        name: _without_private(value, f"{prefix}{name}.") if isinstance(value, dict) else value
        for name, value in tree.items()
        if not is_private(f"{prefix}{name}")
    }


def _plain(value: Any) -> Any:
    """Sources of a mixture as the mappings that they are written as."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return {name: one for name, one in flat(value).items() if one} if hasattr(value, "__dataclass_fields__") else value
