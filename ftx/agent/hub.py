"""DABStep from the hub, or from what the hub's cache has of it."""

from functools import cache
from pathlib import Path

from ftx.environment import hub_is_offline
from ftx.errors import UserError

NAME = "adyen/DABstep"


@cache
def fetch_dabstep() -> Path:
    """The folder of its snapshot; raises UserError where it cannot be had."""
    from huggingface_hub import snapshot_download

    try:
        patterns = ["data/tasks/*.jsonl", "data/context/*"]
        return Path(snapshot_download(NAME, repo_type="dataset", allow_patterns=patterns))
    # The library raises its own errors, those of its HTTP client and the system's.
    except Exception as error:
        why = "the hub is not asked (HF_HUB_OFFLINE)" if hub_is_offline() else str(error).splitlines()[0]
        raise UserError(
            f"evaluation.data_agent.path is not set: {NAME} cannot be fetched from the hub, {why}; "
            "give the folder that the benchmark's files are in"
        ) from error
