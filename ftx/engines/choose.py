"""evaluation.engine becomes an engine."""

from typing import TYPE_CHECKING

from ftx.config.schema import RunConfig
from ftx.data.prepare import Prepared
from ftx.engines.engine import Engine
from ftx.run_folder import RunFolder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def engine_of(run: RunConfig, prepared: Prepared, model: "PreTrainedModel | None", folder: RunFolder) -> Engine:
    """Raises UserError where it cannot be had. ``model`` is None only for those that work elsewhere."""
    if run.evaluation.engine == "openai":
        from ftx.engines.openai import OpenAIEngine

        return OpenAIEngine(run.evaluation)
    if run.evaluation.engine == "vllm":
        from ftx.engines.vllm import VllmEngine

        trained = folder.model if folder.model.exists() else None
        return VllmEngine(run, trained, prepared.tokenizer, prepared.template)
    from ftx.engines.continuous import ContinuousEngine
    from ftx.engines.local import LocalEngine

    assert model is not None
    kind = ContinuousEngine if run.evaluation.engine == "continuous" else LocalEngine
    return kind(model, prepared.tokenizer, prepared.template, run.evaluation.batch_size)
