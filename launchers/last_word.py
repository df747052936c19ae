"""How a run stands, said by whoever started it: the run itself was ended and says nothing any more."""

from ftx.run_folder import RunFolder
from ftx.tracking import tell


def say_state(folder: RunFolder, state: str, reason: str) -> None:
    """Into status.json and to MLflow, which also gets the rows that it lacks."""
    folder.write_status(state=state, reason=reason)
    tell(folder, folder.read_run(), state, reason)
