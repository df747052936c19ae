"""evaluation.engine becomes an engine."""

from typing import TYPE_CHECKING

from ftx.config.schema import RunConfig
from ftx.data.prepare import Prepared
from ftx.engines.engine import Engine
from ftx.run_folder import RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Engines whose model works elsewhere: nothing is loaded in this process.
ELSEWHERE = ("openai", "vllm")


def engine_of(run: RunConfig, prepared: Prepared, model: "PreTrainedModel | None", folder: RunFolder) -> Engine:
    """Raises UserError where it cannot be had."""
    assert model is not None
    from ftx.engines.local import LocalEngine

    return LocalEngine(model, prepared.tokenizer, prepared.template, run.evaluation.batch_size)
