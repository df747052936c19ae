"""A model that is known to say one thing, and held-out conversations to ask it about."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from ftx.attention import PACKED_CPU, register
from ftx.data.conversation import Conversation, to_stored
from ftx.data.conversation_store import ConversationStore, ConversationWriter
from ftx.data.cost import Cost
from ftx.data.prepare import Counts, Prepared
from ftx.data.store import RowStore, TokenStore, TokenWriter, write_members
from ftx.templates import load_template


def tokens_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The tokens of what a model is to say: no two may be alike."""
    tokens = tokenizer.encode(text)
    assert len(set(tokens)) == len(tokens)
    return tokens


def model_that_says(tokenizer: PreTrainedTokenizerFast, tokens: list[int]) -> Qwen3ForCausalLM:
    """Says ``tokens`` after a line end: each token alone decides what follows, as nothing is added to its embedding."""
    size = len(tokenizer)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=size,
            hidden_size=size,
            intermediate_size=4,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=4,
            tie_word_embeddings=False,
        )
    )
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.zero_()
        line_end = tokenizer.encode("\n")[0]
        for before, after in zip([line_end, *tokens[:-1]], tokens, strict=True):
            model.lm_head.weight[after, before] = 1.0
    register()
    model.set_attn_implementation(PACKED_CPU)
    return model


def holding_out(
    folder: Path, conversations: Sequence[Conversation], tokenizer: PreTrainedTokenizerFast, template: str = "chatml"
) -> Prepared:
    """What is prepared where nothing is learned from."""
    with TokenWriter(folder / "tokens.arrow"), ConversationWriter(folder / "conversations.arrow") as writer:
        for conversation in conversations:
            writer.add(to_stored(conversation))
    write_members(folder / "none.arrow", [])
    nothing = RowStore.open(TokenStore(folder / "tokens.arrow"), folder / "none.arrow")
    held_out = ConversationStore(folder / "conversations.arrow")
    return Prepared(
        train=nothing,
        evaluation=nothing,
        train_conversations=held_out[:0],
        held_out=held_out,
        tokenizer=tokenizer,
        template=load_template(template),
        counts=Counts(0, len(conversations), 0, 0, 0, 0, 0, 0),
        cost=Cost(),
        folder=folder,
    )
