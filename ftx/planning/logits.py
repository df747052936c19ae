"""What the head and its loss need on the way, by the way that ``ftx.head`` takes."""

from ftx.config.model_schema import ArchitectureConfig
from ftx.config.schema import RunConfig
from ftx.planning.numbers import numbers_of

# As in ftx.head and ftx.chunked_loss, which import torch; a test compares them.
PLAIN_UP_TO = 64 << 20
CHUNK_BYTES = 256 << 20


def logits_of(run: RunConfig, architecture: ArchitectureConfig, targets: int) -> float:
    """Bytes for so many supervised positions."""
    vocabulary = architecture.vocabulary_size
    wanted = run.model.loss
    if wanted == "plain" or (wanted == "auto" and targets * vocabulary * 4 <= PLAIN_UP_TO):
        return whole_logits(run, architecture, targets)
    if wanted == "liger" or (wanted == "auto" and run.hardware.device == "cuda" and run.model.kernels == "liger"):
        return _liger(run, architecture, targets)
    return _chunked(run, architecture, targets)


def whole_logits(run: RunConfig, architecture: ArchitectureConfig, positions: int) -> float:
    """Of logits, their copy in 32 bits (log-softmax in its place), and the gradients of both: 12 bytes each in bf16."""
    numbers = numbers_of(run)
    each = 3 * 4 if numbers.compute == 4 else 2 * numbers.compute + 2 * 4
    return each * positions * architecture.vocabulary_size + _cast_head(run, architecture)


def _chunked(run: RunConfig, architecture: ArchitectureConfig, targets: int) -> float:
    """A chunk of logits in 32 bits and, where that is shorter, as they came; gradients of hidden states and head."""
    compute, hidden = numbers_of(run).compute, architecture.hidden_size
    chunk = min(CHUNK_BYTES, 4 * targets * architecture.vocabulary_size)
    logits = chunk * (1 + (compute / 4 if compute < 4 else 0))
    states = (4 + (compute if numbers_of(run).casts else 0)) * targets * hidden
    head = _size(architecture) * 4 if _head_is_trained(run) else 0
    # When it is handed on, the head's gradient is there in 32 bits and in the weights' own type.
    handed = numbers_of(run).base * _size(architecture) if head and numbers_of(run).base < 4 else 0
    return max(logits, handed) + states + head + _cast_head(run, architecture)


def _liger(run: RunConfig, architecture: ArchitectureConfig, targets: int) -> float:
    """Liger cuts the positions so that a chunk's logits are about as large as its hidden states were."""
    compute, hidden = numbers_of(run).compute, architecture.hidden_size
    parts = -(-architecture.vocabulary_size // hidden)
    chunk = 1 << max(-(-targets // parts) - 1, 0).bit_length()
    logits = 2 * compute * min(chunk, targets) * architecture.vocabulary_size
    head = _size(architecture) * 4 if _head_is_trained(run) else 0
    return logits + compute * targets * hidden + head + _cast_head(run, architecture)


def _cast_head(run: RunConfig, architecture: ArchitectureConfig) -> float:
    """The head's matrix as autocast shortens it."""
    numbers = numbers_of(run)
    return numbers.compute * _size(architecture) if numbers.base > numbers.compute else 0


def _head_is_trained(run: RunConfig) -> bool:
    return run.method.name == "full" or "lm_head" in run.method.lora.targets


def _size(architecture: ArchitectureConfig) -> int:
    return architecture.vocabulary_size * architecture.hidden_size
