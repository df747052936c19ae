"""How a run ended, said by whoever started it: the run itself was killed and says nothing any more."""

import logging

from ftx.run_folder import RunFolder
from ftx.tracking import Sender, brief, failures

log = logging.getLogger(__name__)


def say_failed(folder: RunFolder, reason: str) -> None:
    """Into status.json and to MLflow, which also gets the rows that it lacks."""
    folder.write_status(state="failed", reason=reason)
    run = folder.read_run()
    if run.tracking.offline:
        return
    try:
        Sender(folder, run).send("failed", reason)
    except failures() as error:
        log.warning(
            "MLflow at %s does not answer (%s); `python -m ftx.report --sync %s` tells it later",
            run.tracking.uri,
            brief(error),
            folder.name,
        )
