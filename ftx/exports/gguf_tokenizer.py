"""A tokenizer and its chat template as llama.cpp takes them."""

import json
import re
from typing import Any

import gguf
from transformers import PreTrainedTokenizerFast

from ftx.data.tokenize import end_of_answer
from ftx.errors import UserError
from ftx.templates import PROBES, rendered_probe

# How the text is cut before merging → llama.cpp's name for it; ``ignore_merges``: whole words of the vocabulary first.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
QWEN2 = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
PRE_TOKENIZERS = {(GPT2, False): "gpt-2", (CL100K, False): "dbrx", (CL100K, True): "llama-bpe", (QWEN2, False): "qwen2"}
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
WORD_BORDER = "▁"
# In a template, what only training reads; llama.cpp need not know it. The body stands in a block, as before.
MARKS = (
    (re.compile(r"\{%(-?)\s*generation\s*(-?)%\}"), r"{%\1 if true \2%}"),
    (re.compile(r"\{%(-?)\s*endgeneration\s*(-?)%\}"), r"{%\1 endif \2%}"),
)


def write_tokenizer(writer: "gguf.GGUFWriter", tokenizer: PreTrainedTokenizerFast, size: int) -> None:
    """Vocabulary, merges and special tokens; ``size`` is the number of the model's embeddings, which may be larger.

    Raises UserError for a tokenizer that llama.cpp has no equal of.
    """
    described: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    if described["model"]["type"] != "BPE":
        raise UserError(f"export=gguf: a tokenizer of type {described['model']['type']} has no layout here")
    tokens, types = _tokens(tokenizer, described, size)
    if described["model"].get("byte_fallback"):
        _write_pieces(writer, described, tokens)
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre_tokenizer(described))
        writer.add_token_merges([_as_line(merge) for merge in described["model"]["merges"]])
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    _write_special(writer, tokenizer)


def pre_tokenizer(described: dict[str, Any]) -> str:
    """llama.cpp's name for how a byte-level tokenizer cuts text; raises UserError where it has none."""
    steps = described["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    normalizer = (described["normalizer"] or {}).get("type")
    levels = [step for step in steps if step.get("type") == "ByteLevel"]
    splits = [step for step in steps if step.get("type") == "Split"]
    is_known = (
        normalizer in (None, "NFC")
        and len(levels) == 1
        and not levels[0].get("add_prefix_space")
        and len(splits) + len(levels) == len(steps)
        and len(splits) <= 1
    )
    pattern = GPT2 if not splits else splits[0]["pattern"].get("Regex", "")
    alone = bool(splits) != levels[0].get("use_regex", True) if is_known else False
    name = PRE_TOKENIZERS.get((pattern, bool(described["model"].get("ignore_merges"))))
    if not is_known or not alone or name is None:
        raise UserError(
            "export=gguf: llama.cpp cuts no text as this model's tokenizer does (pre_tokenizer in its tokenizer.json); "
            f"known are the ways of {', '.join(sorted(PRE_TOKENIZERS.values()))}"
        )
    return name


def _write_pieces(writer: "gguf.GGUFWriter", described: dict[str, Any], tokens: list[str]) -> None:
    """A vocabulary in SentencePiece's manner: llama.cpp merges what makes the piece of the highest score.

    A merge that comes earlier therefore gets a higher one; raises UserError where words are cut in another way.
    """
    if described["pre_tokenizer"] is not None or not _begins_with_border(described["normalizer"]):
        raise UserError(
            "export=gguf: llama.cpp cuts no text as this model's tokenizer does (normalizer, pre_tokenizer)"
        )
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(described["model"]["merges"]):
        ranks.setdefault("".join(_parts(merge)), rank)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_scores([-float(ranks[token]) if token in ranks else -1e6 for token in tokens])
    writer.add_add_space_prefix(True)


def _begins_with_border(normalizer: dict[str, Any] | None) -> bool:
    """Whether every text gets a space in front, and spaces are written as word borders."""
    steps = (normalizer or {}).get("normalizers", [])
    return {"type": "Prepend", "prepend": WORD_BORDER} in steps and any(
        step["type"] == "Replace" and step["content"] == WORD_BORDER and step["pattern"] == {"String": " "}
        for step in steps
    )


def _tokens(
    tokenizer: PreTrainedTokenizerFast, described: dict[str, Any], size: int
) -> tuple[list[str], list[gguf.TokenType]]:
    by_id = {place: token for token, place in tokenizer.get_vocab().items()}
    if by_id and max(by_id) >= size:
        raise UserError(f"export=gguf: the tokenizer has {max(by_id) + 1:,} tokens, the model embeds {size:,}")
    added = {one["id"]: one for one in described["added_tokens"]}
    unknown = tokenizer.unk_token_id if described["model"].get("byte_fallback") else None
    tokens, types = [], []
    for place in range(size):
        token = by_id.get(place, f"[PAD{place}]")
        tokens.append(token)
        if place not in by_id:
            types.append(gguf.TokenType.UNUSED)
        elif place == unknown:
            types.append(gguf.TokenType.UNKNOWN)
        elif place in added:
            types.append(gguf.TokenType.CONTROL if added[place]["special"] else gguf.TokenType.USER_DEFINED)
        elif described["model"].get("byte_fallback") and BYTE.fullmatch(token):
            types.append(gguf.TokenType.BYTE)
        else:
            types.append(gguf.TokenType.NORMAL)
    return tokens, types


def _write_special(writer: "gguf.GGUFWriter", tokenizer: PreTrainedTokenizerFast) -> None:
    """llama.cpp puts the begin token before a chat where the template does, and so where training had it."""
    for add, token in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
    ):
        if isinstance(token, int):
            add(token)
    for token in end_of_answer(tokenizer):
        if token != tokenizer.eos_token_id:
            writer.add_eot_token_id(token)
    writer.add_add_bos_token(begins_with_bos(tokenizer))
    writer.add_add_eos_token(False)
    template = tokenizer.chat_template
    if isinstance(template, str):
        writer.add_chat_template(without_marks(template))


def begins_with_bos(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether what the model was trained on begins with the begin token: it does where the template writes it."""
    template, bos = tokenizer.chat_template, tokenizer.bos_token
    if not isinstance(template, str) or not isinstance(bos, str):
        return False
    messages, tools = PROBES[0]
    rendered = rendered_probe(template, messages, tools, tokenizer.special_tokens_map)
    return rendered is not None and rendered.startswith(bos)


def without_marks(template: str) -> str:
    """The same template, to be read by what knows nothing of training."""
    for pattern, plain in MARKS:
        template = pattern.sub(plain, template)
    return template


def _parts(merge: str | list[str]) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def _as_line(merge: str | list[str]) -> str:
    return " ".join(_parts(merge))
