"""A byte-level BPE tokenizer trained on the training split, for models that start from nothing."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from ftx.data.special_tokens import CUT_ITS_WAY, END_OF_TEXT, special_tokens_of


def train_tokenizer(
    texts: Iterable[str], vocabulary_size: int, template: str = "chatml", family: str = "qwen3"
) -> PreTrainedTokenizerFast:
    """At most ``vocabulary_size`` entries: every byte, so that any text can be written, and what ``template`` ends and
    begins turns with."""
    special = special_tokens_of(template)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    named = special.all()
    if family in CUT_ITS_WAY:
        named = list(dict.fromkeys([*named, END_OF_TEXT]))  # which transformers adds otherwise, behind the last entry
        theirs = Qwen2Tokenizer().backend_tokenizer
        tokenizer.normalizer, tokenizer.pre_tokenizer = theirs.normalizer, theirs.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=named,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special.begin, eos_token=special.end, pad_token=special.padding
    )
