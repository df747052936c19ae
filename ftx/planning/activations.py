"""What the forward pass leaves for the backward pass, and what both need on the way.

Read off what transformers' layers and peft's adapters save for autograd, tensor by tensor; the tests count the same by
PyTorch's own memory tracker on models of full size. Attention is FlashAttention, which saves its operands, its result
and a number for each query and head; on a CPU, where it is not, the weights of all pairs within a segment too.
"""

from dataclasses import dataclass

from ftx.config.model_schema import ArchitectureConfig
from ftx.config.schema import RunConfig
from ftx.planning.numbers import Numbers, numbers_of
from ftx.planning.parameters import key_width, layer_weights, query_width

# Up to this many tokens attention on a CPU holds the weights of all pairs (ftx.attention).
PAIRS_UP_TO = 256


@dataclass(frozen=True)
class Activations:
    """Bytes. ``saved``: by all layers at the end of the forward pass. ``working``: on top of it, at most.

    ``offloaded``: waits in the host's memory meanwhile.
    """

    saved: float
    working: float
    offloaded: float = 0.0


def activations_of(run: RunConfig, architecture: ArchitectureConfig, tokens: int, segment: int) -> Activations:
    """Of a micro-batch of so many tokens, in segments of about ``segment``; the head and its loss left out."""
    layer = Layer(run, architecture, segment)
    numbers, hidden = layer.numbers, architecture.hidden_size
    each = tokens * layer.saved_by_token()
    between = tokens * numbers.stream * hidden
    rotary = 2 * tokens * architecture.head_dim * numbers.stream
    # The last norm and what it gives the head; hidden states come out of the model in the norm's type.
    last = tokens * layer.saved_by_norm(hidden, numbers.stream, trained=layer.is_full)
    last += tokens * hidden * max(numbers.norm, numbers.stream)
    working = tokens * layer.working_by_token()
    if not run.hardware.activation_checkpointing:
        return Activations(architecture.layers * each + rotary + last, working)
    away = max(architecture.layers - 2, 0) if run.hardware.activation_offload else 0
    kept = (architecture.layers - away) * between
    return Activations(kept + rotary + last, each + working, away * between)


@dataclass(frozen=True)
class Layer:
    """One decoder layer."""

    run: RunConfig
    architecture: ArchitectureConfig
    segment: int

    @property
    def numbers(self) -> Numbers:
        return numbers_of(self.run)

    @property
    def is_full(self) -> bool:
        return self.run.method.name == "full"

    @property
    def has_liger(self) -> bool:
        return self.run.model.kernels == "liger"

    def saved_by_token(self) -> float:
        """Bytes for each token."""
        return self._attention() + self._mlp() + self._norms()

    def working_by_token(self) -> float:
        """Of the backward pass at the MLP: gradients of its products, and of what goes on to the layer in front."""
        numbers, architecture = self.numbers, self.architecture
        return 2 * numbers.compute * architecture.intermediate_size + 3 * 4 * architecture.hidden_size

    def saved_by_norm(self, width: int, given: int, *, trained: bool, groups: int = 1) -> float:
        """Of one norm over ``width`` numbers of ``given`` bytes each: they in 32 bits, a factor, and what is scaled."""
        if self.has_liger:
            return given * width + 4 * groups
        scaled = (4 if self.architecture.family == "olmo2" else given) * width
        return 4 * width + 4 * groups + (scaled if trained else 0)

    def _norms(self) -> float:
        """The two over the whole width: behind attention and MLP in OLMo-2, else in front."""
        given = self.numbers.compute if self.architecture.family == "olmo2" else self.numbers.stream
        return 2 * self.saved_by_norm(self.architecture.hidden_size, given, trained=self.is_full)

    def _attention(self) -> float:
        architecture, compute = self.architecture, self.numbers.compute
        queries, keys = query_width(architecture), key_width(architecture)
        saved = self._inputs(architecture.hidden_size, self._normed(), ("q_proj", "k_proj", "v_proj"))
        if architecture.family == "qwen3":
            saved += self.saved_by_norm(queries, compute, trained=self.is_full, groups=architecture.heads)
            saved += self.saved_by_norm(keys, compute, trained=self.is_full, groups=architecture.key_value_heads)
        elif architecture.family == "olmo2":
            saved += self.saved_by_norm(queries, compute, trained=self.is_full)
            saved += self.saved_by_norm(keys, compute, trained=self.is_full)
        saved += compute * (2 * queries + 2 * keys) + 4 * architecture.heads
        if self.run.hardware.device == "cpu" and self.segment <= PAIRS_UP_TO:
            pairs = architecture.heads * self.segment
            saved += (4 + (compute if compute < 4 else 0)) * pairs + 2 * compute * (queries - keys)
        # Attention's result is kept by attention itself; an adapter keeps a copy of its own.
        return saved + self._inputs(queries, compute, ("o_proj",), kept_already=True)

    def _mlp(self) -> float:
        architecture, compute = self.architecture, self.numbers.compute
        between = architecture.intermediate_size
        saved = self._inputs(architecture.hidden_size, self._normed(), ("gate_proj", "up_proj"))
        saved += (2 if self.has_liger else 3) * compute * between
        return saved + self._inputs(between, compute, ("down_proj",))

    def _normed(self) -> int:
        """Bytes of a number that goes into attention and MLP: OLMo-2 has its norms behind them."""
        if self.architecture.family == "olmo2":
            return self.numbers.stream
        return max(self.numbers.norm, self.numbers.stream)

    def _inputs(self, width: int, given: int, layers: tuple[str, ...], *, kept_already: bool = False) -> float:
        """What linear layers with the same input of ``width`` numbers of ``given`` bytes keep of it."""
        numbers, lora = self.numbers, self.run.method.lora
        if self.is_full:
            if numbers.casts and given != numbers.compute:
                return len(layers) * numbers.compute * width
            return 0 if kept_already else given * width
        last = {target.rpartition(".")[2] for target in lora.targets}
        adapted = [name for name in layers if lora.targets == ["all-linear"] or name in last]
        own = len(adapted) * lora.rank * numbers.compute
        if lora.dropout:
            own += len(adapted) * (1 + numbers.compute) * width
        elif numbers.casts:
            own += len(adapted) * numbers.compute * width
        elif adapted and not kept_already:
            own += given * width
        if lora.dora:
            outputs = {one.module: one.shape[0] for one in layer_weights(self.architecture) if one.kind == "linear"}
            own += sum(2 * numbers.compute * outputs[name] for name in adapted)
        return own
