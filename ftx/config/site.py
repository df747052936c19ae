"""launchers/site.yaml: what every job on this cluster needs, as launcher.* keys without the prefix. Git ignores it."""

from dataclasses import fields
from typing import Any

from omegaconf import OmegaConf

from ftx.config.keys import did_you_mean
from ftx.config.launcher_schema import LauncherConfig
from ftx.environment import CHECKOUT
from ftx.errors import UserError

SITE = CHECKOUT / "launchers" / "site.yaml"


def read_site() -> Any:
    """What it says, to be merged over launchers/slurm.yaml; {} where there is no such file.

    Raises UserError for what is no launcher key.
    """
    said = OmegaConf.load(SITE) if SITE.is_file() else OmegaConf.create({})
    known = [item.name for item in fields(LauncherConfig) if item.name != "name"]
    for name in map(str, said):
        if name not in known:
            raise UserError(f"{SITE}: {name}: no launcher key{did_you_mean(name, known)}; there are {', '.join(known)}")
    return said
