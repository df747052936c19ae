"""The text of a model card, section by section."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftx.config.parallel import ranks, strategy_of
from ftx.exports.card_facts import Facts
from ftx.exports.origins import Origin
from ftx.exports.parts import is_adapter, place_of
from ftx.exports.public import public, public_settings, public_words, public_yaml
from ftx.markdown import Column, to_table
from ftx.sweep_arms import format_interval, format_score, main_metrics_of
from ftx.sweep_cost import duration

METHODS = {
    "full": "all parameters were trained",
    "lora": "low-rank adapters were trained on a frozen model (LoRA)",
    "qlora": "low-rank adapters were trained on a frozen model held in 4 bits (QLoRA)",
}
OPTIONAL = {
    "model": "the weights as trained",
    "merged": "the model with its adapter merged in",
    "gguf": "files for llama.cpp (`*.gguf`)",
}
# Versions that a result may depend on; provenance.json has more.
PACKAGES = ("torch", "transformers", "peft", "accelerate", "deepspeed", "bitsandbytes", "tokenizers", "datasets")


def card_body(facts: Facts, part: str, others: Sequence[str], figures: Sequence[Path]) -> str:
    """Markdown below the front matter. ``others``: parts that lie in the same repository."""
    sections = {
        "": _introduction(facts, part),
        "Use": _use(facts, part, others),
        "Data": _data(facts),
        "Method": _method(facts),
        "Hardware and time": _hardware(facts),
        "Evaluation": _evaluation(facts, part),
        "Figures": "\n\n".join(f"![{file.stem.replace('_', ' ')}](figures/{file.name})" for file in figures),
        "Reproduce": _reproduce(facts),
        "Licences": _licences(facts),
        "All settings": _all_settings(facts),
    }
    titles = [(f"## {title}\n\n" if title else "") + text for title, text in sections.items() if text]
    return "\n\n".join(titles) + "\n"


def _introduction(facts: Facts, part: str) -> str:
    run, base = facts.run, facts.base
    start = base.describe("") if base else f"a randomly initialised {run.model.architecture.family} model"
    kind = {
        "gguf": "files for llama.cpp of a model fine-tuned from",
        "merged": "the adapter of this run merged into",
    }.get(part, "an adapter for" if is_adapter(place_of(facts.folder, part)) else "a model fine-tuned from")
    on = ", ".join(origin.describe("datasets/") for origin in facts.data)
    was_quantised = run.method.name == "qlora" and part != "model"
    rounded = (
        " The base that was merged into is not the original but what 4 bits (NF4) left of it, dequantised: the adapter "
        "was trained on that."
        if was_quantised
        else ""
    )
    return f"# {run.name or facts.folder.name}\n\nThis is {kind} {start}, trained on {on}.{rounded}"


def _use(facts: Facts, part: str, others: Sequence[str]) -> str:
    place, name = place_of(facts.folder, part), facts.export.repository or "FOLDER"
    beside = [f"This repository also has {OPTIONAL[other]}." for other in others]
    if part == "gguf":
        files = [f"- `{file.name}`" for file in sorted(place.glob("*.gguf"))]
        example = "```\nllama-cli -m FILE.gguf --jinja\n```"
        return "\n\n".join(["\n".join(files), example, *beside])
    return "\n\n".join(
        [_example(facts, place, name), "The tokenizer's chat template is the one of the training.", *beside]
    )


def _example(facts: Facts, place: Path, name: str) -> str:
    """Python that loads what lies in ``place`` as it was trained, and asks it something."""
    imports, held, options, ends = "from transformers import AutoModelForCausalLM, AutoTokenizer", "", "", ""
    loads = "AutoModelForCausalLM"
    if is_adapter(place):
        loads = "AutoPeftModelForCausalLM"
        imports = "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer"
        # peft takes the base's word for it.
        ends = f", eos_token_id={_ends(place)}" if _ends(place) is not None else ""
        if facts.run.method.name == "qlora":
            imports = f"import torch\n{imports}, BitsAndBytesConfig"
            held, options = f"{_quantisation(facts)}\n", ", quantization_config=quantisation"
    return (
        f'```python\n{imports}\n\n{held}model = {loads}.from_pretrained("{name}"{options})\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
        'messages = [{"role": "user", "content": "…"}]\n'
        "prompt = tokenizer.apply_chat_template(\n"
        '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"\n).to(model.device)\n'
        f"answer = model.generate(**prompt, max_new_tokens=512{ends})\n"
        'print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))\n```'
    )


def _ends(place: Path) -> int | list[int] | None:
    """The tokens that end an answer; runs of older versions did not write them down."""
    file = place / "generation_config.json"
    known: int | list[int] | None = (
        json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
    )
    return known


def _quantisation(facts: Facts) -> str:
    """How the run held its base."""
    from ftx.adapters import quantization

    held = quantization(facts.run)
    assert held is not None
    return (
        "# The adapter was trained on the base in 4 bits; on the whole one it answers otherwise.\n"
        "quantisation = BitsAndBytesConfig(\n"
        f"    load_in_4bit=True,\n    bnb_4bit_quant_type={json.dumps(held.bnb_4bit_quant_type)},\n"
        f"    bnb_4bit_use_double_quant={held.bnb_4bit_use_double_quant},\n"
        f"    bnb_4bit_compute_dtype={held.bnb_4bit_compute_dtype},\n)"
    )


def _data(facts: Facts) -> str:
    run, last = facts.run.data, _last_training_row(facts)
    sources = "\n".join(f"- {_source(origin)}" for origin in facts.data)
    settings = f"Packed into rows of {run.max_length:,} tokens" if run.packing else f"Up to {run.max_length:,} tokens"
    seen = (
        f" {last['total_tokens']:,} tokens were trained on, {last['supervised_tokens']:,} of them supervised "
        "(what the assistant says)."
        if "total_tokens" in last and "supervised_tokens" in last
        else ""
    )
    fingerprint = (
        f"Fingerprint of the content: `{public(str(facts.provenance.get('data_fingerprint', 'not recorded')))}`"
    )
    return f"{sources}\n\n{settings}, template `{facts.run.model.template}`.{seen}\n\n{fingerprint}"


def _source(origin: Origin) -> str:
    licence = f", licence: {origin.licence.describe()}" if origin.licence else ""
    return origin.describe("datasets/") + licence


def _method(facts: Facts) -> str:
    run = facts.run
    last = _last_training_row(facts)
    steps = f"{last['step']:,} steps" if last else "an unknown number of steps"
    epochs = f" ({last['epoch']:.3g} epochs)" if "epoch" in last else ""
    lines = (
        f"Supervised fine-tuning; {METHODS[run.method.name]}. {steps}{epochs} of {run.schedule.global_batch_size} "
        f"rows, {run.method.optimizer} at a learning rate of {run.schedule.learning_rate:g}, schedule "
        f"{run.schedule.name}, {run.hardware.precision}, seed {run.seed}."
    )
    settings = public_settings(run)
    table = to_table(
        [
            Column("setting", [f"`{name}`" for name in settings], False),
            Column("value", [f"`{_value(value)}`" for value in settings.values()], False),
        ]
    )
    return f"{lines}\n\nSettings that differ from the defaults of ftx:\n\n{table}" if settings else lines


def _hardware(facts: Facts) -> str:
    run, cost, provenance = facts.run, facts.cost, facts.provenance
    hardware = run.hardware
    if hardware.device == "cuda":
        device = f"{hardware.nodes * hardware.gpus_per_node} × {hardware.gpu or 'NVIDIA GPU'}"
    else:
        device = provenance.get("processor") or "CPU"
    rows = {"device": device, "processes": str(ranks(run))}
    if ranks(run) > 1:
        rows["strategy"] = strategy_of(run)
    if cost is not None:
        rows |= {
            "training time": duration(cost.hours),
            "tokens a second": f"{cost.tokens_per_second:,.0f}",
            "memory": f"{cost.memory_gib:.2f} GiB",
        }
        rows |= {"GPU-hours": f"{cost.gpu_hours:.3g}"} if cost.gpu_hours is not None else {}
        rows |= {"MFU": f"{cost.mfu:.1%}"} if cost.mfu is not None else {}
    versions = {name: known for name, known in provenance.get("packages", {}).items() if name in PACKAGES}
    rows |= {"Python": str(provenance.get("python", "")), **versions}
    shown = {name: value for name, value in rows.items() if value}
    return to_table([Column("what", list(shown), False), Column("value", list(shown.values()), False)])


def _evaluation(facts: Facts, part: str) -> str:
    """What was scored is the trained model; how far files for llama.cpp are from it was measured for each."""
    scored = _scores(facts)
    if scored is None:
        scored = "No task was scored."
    elif part == "merged":
        scored = f"Measured on the adapter and its base before they were merged:\n\n{scored}"
    elif part == "gguf":
        scored = f"Measured on the model as trained, with transformers, not on these files:\n\n{scored}"
    return "\n\n".join([scored, *([_closeness(facts)] if part == "gguf" else [])])


def _closeness(facts: Facts) -> str:
    """Of each file, by what its check found."""
    entries = {Path(one.get("made", "")).name: one for one in facts.folder.read_exports().values()}
    cells: dict[str, list[str]] = {"file": [], "logits off by": [], "KL, nats a token": [], "same choice": []}
    for file in sorted(place_of(facts.folder, "gguf").glob("*.gguf")):
        found = (entries.get(file.name, {}).get("check") or {}).get("difference") or {}
        cells["file"].append(f"`{file.name}`")
        cells["logits off by"].append(f"{found['relative']:.2g}" if "relative" in found else "not compared")
        cells["KL, nats a token"].append(f"{found['kl']:.2g}" if "kl" in found else "—")
        cells["same choice"].append(f"{found['same_choice']:.1%}" if "same_choice" in found else "—")
    table = to_table([Column(title, column, title != "file") for title, column in cells.items()])
    return (
        "How far each file is from the trained model, on held-out conversations: its logits relative to their own "
        f"size, the divergence, and how often the likeliest token is the same.\n\n{table}"
    )


def _scores(facts: Facts) -> str | None:
    metrics = [metric for metric in main_metrics_of([facts.arm]) if metric.score(facts.arm) is not None]
    if not metrics:
        return None
    cells: dict[str, list[str]] = {"metric": [], "value": [], "95 % interval": [], "n": []}
    for metric in metrics:
        score, rate = metric.score(facts.arm), metric.is_rate([facts.arm])
        assert score is not None
        alone = format_score(score, rate=rate).partition(" [")[0]
        cells["metric"].append(f"`{metric.full_name}`")
        cells["value"].append(alone)
        cells["95 % interval"].append(f"[{format_interval(score.interval, rate=rate)}]" if score.interval else "—")
        cells["n"].append(f"{score.n:,}" if score.n else "—")
    return to_table([Column(title, column, title != "metric") for title, column in cells.items()])


def _reproduce(facts: Facts) -> str:
    words = " ".join(map(shlex.quote, public_words(facts.folder)))
    commit, dirty = facts.provenance.get("commit"), facts.provenance.get("dirty_diff")
    code = f" with ftx at commit `{commit}`" if commit else ""
    changed = ", with changes that were not committed" if dirty else ""
    return (
        f"```\npython -m ftx.train {words}".rstrip() + f"\n```\n\nRun{code}{changed}; of paths only the last part is "
        f"shown. The same settings and data make the same run: `{facts.folder.name.rpartition('-')[2]}`."
    )


def _licences(facts: Facts) -> str:
    base = facts.base
    lines = []
    if base is None:
        lines.append("- The model began with random weights: no licence of a base model applies.")
    elif base.licence is not None:
        lines.append(f"- Base model {base.describe('')}: {base.licence.describe()}, and it applies to this model too.")
    else:
        lines.append(
            f"- Base model {base.describe('')}: its licence was not recorded here; see its own card. It applies to "
            "this model too."
        )
    for origin in facts.data:
        said = (
            origin.licence.describe() if origin.licence else "its licence was not recorded here; see where it is from"
        )
        lines.append(f"- Data {origin.describe('datasets/')}: {said}.")
    return "\n".join(lines)


def _all_settings(facts: Facts) -> str:
    return (
        "<details>\n<summary>run.yaml</summary>\n\nWithout the keys that say where it ran and was tracked; of paths "
        f"only the last part.\n\n```yaml\n{public_yaml(facts.run)}```\n\n</details>"
    )


def _last_training_row(facts: Facts) -> Mapping[str, Any]:
    return next((row for row in reversed(facts.rows) if "train_loss" in row), {})


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
