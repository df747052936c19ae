"""What of a model its data needs: tokenizer and chat template, and what a row costs it."""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from ftx.config.made_up import ROWS, is_made_up
from ftx.config.schema import RunConfig, SourceConfig
from ftx.data.cost import Cost, cost_of_architecture, cost_of_model
from ftx.data.encode import Encoder, exact_encoder, fast_encoder
from ftx.data.sources import is_file, sources_of
from ftx.data.tiny_tokenizer import train_tokenizer
from ftx.errors import UserError
from ftx.templates import Template, choose_template, load_template, with_thinking

# From so many bytes of conversations on, the fast engine gains more than the second that loading it takes.
WORTH_A_FAST_ENGINE = 6_000_000
# Generous guesses, to tell beforehand whether that many come.
GZIP_RATIO, BYTES_OF_CONVERSATION = 4, 20_000


@dataclass(frozen=True)
class ModelParts:
    """They follow from the run alone, or for a model from nothing from its training texts too."""

    tokenizer: PreTrainedTokenizerFast
    template: Template


def pretrained_parts(run: RunConfig) -> ModelParts:
    """Raises UserError where the tokenizer cannot be loaded or no template fits."""
    own = _own_tokenizer(run)
    return ModelParts(own, with_thinking(choose_template(run.model.template, own), run.data.thinking))


def random_parts(run: RunConfig, texts: Iterable[str]) -> ModelParts:
    """With a tokenizer trained on ``texts``."""
    architecture = run.model.architecture
    tokenizer = train_tokenizer(texts, architecture.vocabulary_size, run.model.template, architecture.family)
    return ModelParts(tokenizer, with_thinking(load_template(run.model.template), run.data.thinking))


def cost_for(run: RunConfig) -> Cost:
    """What rows cost the run's model; raises UserError where its config.json cannot be read."""
    architecture, name = run.model.architecture, str(run.model.name)
    if run.model.weights == "random":
        return cost_of_architecture(
            hidden=architecture.hidden_size,
            intermediate=architecture.intermediate_size,
            heads=architecture.heads,
            key_value_heads=architecture.key_value_heads,
            head_dim=architecture.head_dim,
        )
    try:
        config: Any = AutoConfig.from_pretrained(name, revision=run.model.revision)
    except (OSError, ValueError) as error:
        raise UserError(f"model.name={name}: its config.json cannot be read: {str(error).splitlines()[0]}") from error
    return cost_of_model(getattr(config, "text_config", config))


def load_tokenizer(run: RunConfig, prepared: Path) -> PreTrainedTokenizerFast:
    """The model's own tokenizer; a random model's was trained on the data and lies with what was prepared of it."""
    if run.model.weights == "random":
        trained: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(prepared / "tokenizer")  # type: ignore[assignment]
        return trained
    return _own_tokenizer(run)


def load_encoder(run: RunConfig, tokenizer: PreTrainedTokenizerFast, loading: ThreadPoolExecutor) -> Encoder:
    """What encodes the run's conversations: the fast engine, which loads meanwhile, where there are many of them."""
    if _bytes_at_most(run) < WORTH_A_FAST_ENGINE:
        return exact_encoder(tokenizer)
    future: Future[Encoder] = loading.submit(lambda: fast_encoder(tokenizer) or exact_encoder(tokenizer))
    return lambda rendered: future.result()(rendered)  # noqa: PLW0108 - waits when it is called, not here


def _own_tokenizer(run: RunConfig) -> PreTrainedTokenizerFast:
    name = str(run.model.name)
    try:
        own: Any = AutoTokenizer.from_pretrained(name, revision=run.model.revision)
    except (OSError, ValueError) as error:
        raise UserError(f"model.name={name}: its tokenizer cannot be loaded: {str(error).splitlines()[0]}") from error
    tokenizer: PreTrainedTokenizerFast = own
    return tokenizer


def _bytes_at_most(run: RunConfig) -> float:
    """About as many bytes as the run's conversations may have; without end where they are on the hub."""
    if run.data.source == "stdlib_docs":
        return 0
    limit = (run.data.limit or float("inf")) * BYTES_OF_CONVERSATION
    return min(limit, sum(_size_of(source, limit) for source in sources_of(run.data).values()))


def _size_of(source: SourceConfig, limit: float) -> float:
    if is_made_up(source.path):
        return ROWS * BYTES_OF_CONVERSATION
    return _size(Path(source.path)) if is_file(source) else limit


def _size(path: Path) -> int:
    return path.stat().st_size * (GZIP_RATIO if path.suffix == ".gz" else 1)
