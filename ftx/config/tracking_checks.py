"""The trackers of a run: which there are, and what goes together."""

import re
from collections.abc import Callable
from dataclasses import replace

from ftx.config.keys import did_you_mean
from ftx.config.schema import RunConfig, TrackingConfig
from ftx.environment import wandb_mode
from ftx.errors import UserError

# Besides MLflow, which is fed always.
TRACKERS = ("tensorboard", "wandb")

TRACKING_READ_WHEN: dict[str, tuple[Callable[[RunConfig], bool], str]] = {
    "tracking.wandb_mode": (lambda run: "wandb" in run.tracking.also, "only tracking.also=[wandb] does"),
}


def check_tracking(run: RunConfig) -> None:
    """Raise UserError for an address that is none, an unknown tracker, or one that is to send while nothing is sent."""
    tracking = run.tracking
    if not re.match(r"sqlite:///[^/]|sqlite:////+[^/]|https?://[^/]", tracking.uri):
        raise UserError(f"tracking.uri={tracking.uri}: must be sqlite:///FILE or http://HOST:PORT of an MLflow server")
    for name in tracking.also:
        if name == "mlflow":
            raise UserError("tracking.also=[mlflow]: MLflow is fed always; name only what comes besides it")
        if name not in TRACKERS:
            raise UserError(
                f"tracking.also=[{name}]: no such tracker{did_you_mean(name, TRACKERS)}; "
                f"there are {', '.join(TRACKERS)}"
            )
    if len(set(tracking.also)) < len(tracking.also):
        raise UserError(f"tracking.also=[{','.join(tracking.also)}]: name each tracker once")
    if tracking.offline and tracking.wandb_mode == "online":
        raise UserError(
            "tracking.wandb_mode=online: tracking.offline=true sends nothing while running; drop one of them"
        )


def with_wandb_mode(tracking: TrackingConfig) -> TrackingConfig:
    """What the key leaves open is settled here: a job of this run may begin in another environment.

    Raises UserError where WANDB_MODE is neither of the two.
    """
    if "wandb" not in tracking.also or tracking.wandb_mode is not None:
        return tracking
    said = None if tracking.offline else wandb_mode()
    if said not in (None, "offline", "online"):
        raise UserError(
            f"WANDB_MODE={said}: this environment's is neither offline nor online, and tracking.also=[wandb] asks for "
            "W&B; say tracking.wandb_mode=offline or online, or leave wandb out"
        )
    return replace(tracking, wandb_mode=said or "offline")
