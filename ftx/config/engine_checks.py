"""Which engine may answer in which run."""

import re
from collections.abc import Callable

from ftx.config.schema import RunConfig
from ftx.errors import UserError

# Engines whose model works elsewhere: nothing is loaded in this process.
ELSEWHERE = ("openai", "vllm")
ENGINE_READ_WHEN: dict[str, tuple[Callable[[RunConfig], bool], str]] = {
    "evaluation.url": (lambda run: run.evaluation.engine == "openai", "only evaluation.engine=openai does"),
    "evaluation.served_model": (lambda run: run.evaluation.engine == "openai", "only evaluation.engine=openai does"),
    "evaluation.top_p": (lambda run: run.evaluation.temperature > 0, "evaluation.temperature=0 draws nothing"),
}


def check_engine(run: RunConfig) -> None:
    """Raise UserError for an engine that cannot answer for this run."""
    evaluation = run.evaluation
    if evaluation.engine == "openai":
        if not re.match(r"https?://[^/]", evaluation.url or ""):
            raise UserError(
                f"evaluation.url={evaluation.url}: evaluation.engine=openai needs the server's address, "
                "as in evaluation.url=http://127.0.0.1:8000/v1"
            )
        if run.schedule.epochs != 0:
            raise UserError(
                "evaluation.engine=openai: answers with what the server has loaded, not with what this run trains; "
                "add schedule.epochs=0, or choose evaluation.engine=transformers"
            )
    if evaluation.engine == "vllm" and run.model.weights == "random" and run.schedule.epochs == 0:
        raise UserError(
            "evaluation.engine=vllm: reads the model from disk, and a random one that is not trained is not there; "
            "use evaluation.engine=transformers"
        )
    if evaluation.engine == "continuous" and evaluation.temperature > 0:
        raise UserError(
            f"evaluation.temperature={evaluation.temperature}: with evaluation.engine=continuous what is drawn would "
            "depend on the batch; use evaluation.engine=transformers, or temperature 0"
        )
