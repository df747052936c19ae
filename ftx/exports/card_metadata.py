"""The front matter of a model card, which the hub reads."""

from ftx.exports.card_facts import Facts
from ftx.exports.parts import is_adapter, place_of
from ftx.sweep_arms import main_metrics_of


def card_metadata(facts: Facts, part: str) -> str:
    """As yaml, without the lines of dashes around it."""
    from huggingface_hub import EvalResult, ModelCardData

    base, adapter = facts.base, is_adapter(place_of(facts.folder, part))
    known = base.repository if base else None
    licence = base.licence if base else None
    data = [one.repository for one in facts.data if one.repository]
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=data[0] if data else facts.run.data.source,
            dataset_name=", ".join(one.title for one in facts.data),
            metric_type=metric.name,
            metric_name=metric.full_name,
            metric_value=score.value,
        )
        for metric in main_metrics_of([facts.arm])
        if (score := metric.score(facts.arm)) is not None
    ]
    return ModelCardData(
        base_model=known,
        # Of files for llama.cpp too: "quantized" would be of the base itself, and "merge" is of several models.
        base_model_relation=("adapter" if adapter else "finetune") if known else None,
        datasets=data or None,
        license=licence.id if licence else None,
        license_name=licence.name if licence else None,
        license_link=licence.link if licence else None,
        library_name=None if part == "gguf" else "peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["sft", facts.run.method.name, *(["gguf"] if part == "gguf" else [])],
        model_name=facts.run.name or facts.folder.name,
        # Whoever reads this takes it for what these files score: those for llama.cpp were not scored.
        eval_results=(results if part != "gguf" else None) or None,
    ).to_yaml()
