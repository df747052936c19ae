"""A byte-level BPE tokenizer trained on the training split, for models that start from nothing."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ftx.data.special_tokens import special_tokens_of


def train_tokenizer(texts: Iterable[str], vocabulary_size: int, template: str = "chatml") -> PreTrainedTokenizerFast:
    """At most ``vocabulary_size`` entries: every byte, so that any text can be written, and what ``template`` ends and
    begins turns with."""
    special = special_tokens_of(template)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=special.all(),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special.begin, eos_token=special.end, pad_token=special.padding
    )
