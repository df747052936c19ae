"""The model that a run starts from, and what its method makes trainable."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from ftx.attention import implementation, register
from ftx.config.schema import ArchitectureConfig, RunConfig
from ftx.errors import UserError


def load_model(run: RunConfig, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """The starting weights in 32-bit floats, with packed attention; the same seed gives the same random weights."""
    register()
    if run.model.weights == "random":
        torch.manual_seed(run.seed)
        model = _random_model(run.model.architecture, tokenizer)
    else:
        model = _pretrained(str(run.model.name), run.model.revision)
    model.set_attn_implementation(implementation(run))
    if tokenizer.pad_token_id is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def load_trained(folder: Path, run: RunConfig, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """A finished run's model: the folder's own weights, or its adapter on the run's starting weights."""
    if run.method.name == "full":
        register()
        model = _pretrained(str(folder), "main")
        model.set_attn_implementation(implementation(run))
        return model
    from peft import PeftModel

    return PeftModel.from_pretrained(load_model(run, tokenizer), folder)  # type: ignore[return-value]


def add_adapter(model: PreTrainedModel, run: RunConfig) -> PreTrainedModel:
    """``method=lora``: freeze the model and put trainable adapters in; raises UserError for unknown targets."""
    from peft import LoraConfig, get_peft_model

    lora = run.method.lora
    targets: str | list[str] = "all-linear" if lora.targets == ["all-linear"] else list(lora.targets)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=int(lora.alpha),
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(run.seed)
    try:
        return get_peft_model(model, config)  # type: ignore[return-value]
    except ValueError as error:
        linear = sorted({name.rsplit(".", 1)[-1] for name, module in model.named_modules() if _is_linear(module)})
        raise UserError(
            f"method.lora.targets={list(lora.targets)}: the model has no such modules; its linear ones are "
            f"{', '.join(linear)}"
        ) from error


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear)


def _pretrained(name: str, revision: str) -> PreTrainedModel:
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(name, revision=revision, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise UserError(f"model.name={name}: cannot be loaded: {str(error).splitlines()[0]}") from error
    return model


def _random_model(architecture: ArchitectureConfig, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    config = Qwen3Config(
        vocab_size=architecture.vocabulary_size,
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.key_value_heads,
        head_dim=architecture.head_dim,
        tie_word_embeddings=architecture.tied_embeddings,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)
