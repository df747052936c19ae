"""The schema of ``model``: which weights a run starts from, and how they are computed with."""

from dataclasses import dataclass

from ftx.config.schema_keys import key, section


@dataclass(frozen=True)
class ArchitectureConfig:
    """A model's dimensions: what a random model is built from, and what a plan of a pretrained one is made with."""

    family: str = key("qwen3", choices=("qwen3", "qwen2", "llama", "olmo2"))
    vocabulary_size: int = key(8192, minimum=300)
    hidden_size: int = key(192, minimum=1)
    intermediate_size: int = key(384, minimum=1)
    layers: int = key(1, minimum=1)
    heads: int = key(4, minimum=1)
    key_value_heads: int = key(2, minimum=1)
    head_dim: int = key(48, minimum=2)
    tied_embeddings: bool = True


@dataclass(frozen=True)
class ModelConfig:
    """Which weights a run starts from."""

    weights: str = key("pretrained", choices=("pretrained", "random"))
    # A hub name (owner/model) or a folder in Hugging Face layout.
    name: str | None = None
    revision: str = "main"
    # An adapter's folder, put on the weights: such a model is only scored. Identity follows its content.
    adapter: str | None = key(None, identity=False)
    # auto: the tokenizer's own template when it has generation marks, else that of the model's family.
    template: str = "auto"
    # What schedule.learning_rate and schedule.global_batch_size are unless a run says otherwise.
    suggested_learning_rate: float = key(2e-5, above=0, identity=False)
    suggested_global_batch_size: int = key(8, minimum=1, identity=False)
    # auto: flash-attn on a GPU where it is installed, else PyTorch's own FlashAttention (varlen); cpu on a CPU.
    attention: str = key("auto", choices=("auto", "flash", "varlen", "cpu"), identity=False)
    # torch.compile of the decoder layers; auto: where the training is long enough to earn the compiling back.
    compile: str = key("auto", choices=("auto", "always", "never"), identity=False)
    # Liger's Triton kernels for norms, rotary embedding and MLP; auto: where there is a GPU and they are installed.
    kernels: str = key("auto", choices=("auto", "liger", "none"), identity=False)
    # auto: without ever holding all logits where they are large, by Liger's kernel on a GPU where that is installed.
    loss: str = key("auto", choices=("auto", "plain", "chunked", "liger"), identity=False)
    architecture: ArchitectureConfig = section(ArchitectureConfig)
