"""The families of models that can be built from their dimensions alone."""

from collections.abc import Callable

from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from ftx.config.model_schema import ArchitectureConfig

FAMILIES: dict[str, tuple[Callable[..., PreTrainedConfig], type[PreTrainedModel]]] = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "olmo2": (Olmo2Config, Olmo2ForCausalLM),
}


def model_config(
    architecture: ArchitectureConfig, tokenizer: PreTrainedTokenizerFast | None = None
) -> PreTrainedConfig:
    """These dimensions as transformers writes them; ``tokenizer``: whose special tokens the model knows."""
    config, _ = FAMILIES[architecture.family]
    return config(
        vocab_size=architecture.vocabulary_size,
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.key_value_heads,
        head_dim=architecture.head_dim,
        tie_word_embeddings=architecture.tied_embeddings,
        bos_token_id=tokenizer.bos_token_id if tokenizer else None,
        eos_token_id=tokenizer.eos_token_id if tokenizer else None,
        pad_token_id=tokenizer.pad_token_id if tokenizer else None,
    )


def random_model(architecture: ArchitectureConfig, tokenizer: PreTrainedTokenizerFast | None = None) -> PreTrainedModel:
    """With weights drawn by torch's generator; under ``torch.device("meta")`` with none, whatever its size."""
    _, model = FAMILIES[architecture.family]
    return model(model_config(architecture, tokenizer))
