"""What the tokenizers of random models have of their families': how turns begin and end, how text is cut."""

from dataclasses import dataclass

# Families whose tokenizers transformers builds anew around a stored vocabulary, with the family's own way to cut text
# into words: a tokenizer that cut it otherwise would come back as another one.
CUT_ITS_WAY = ("qwen2",)
END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


@dataclass(frozen=True)
class SpecialTokens:
    """Of a family's tokenizers; ``end`` ends an answer, ``begin`` begins a text where there is such a token."""

    padding: str
    end: str
    begin: str | None = None
    of_turns: tuple[str, ...] = ()

    def all(self) -> list[str]:
        """Each once, in the order of their numbers."""
        named = (self.padding, *((self.begin,) if self.begin else ()), *self.of_turns, self.end)
        return list(dict.fromkeys(named))


CHATML = SpecialTokens(END_OF_TEXT, TURN_END, of_turns=(TURN_START,))
# Of templates whose turns are not ChatML's; models that use Tulu's have Llama's or OLMo's own.
BY_TEMPLATE = {
    "llama3_1": SpecialTokens(
        "<|finetune_right_pad_id|>",
        "<|eot_id|>",
        "<|begin_of_text|>",
        ("<|start_header_id|>", "<|end_header_id|>"),
    ),
    "tulu": SpecialTokens("<|finetune_right_pad_id|>", "<|end_of_text|>", "<|begin_of_text|>"),
    "olmo2": SpecialTokens("<|pad|>", END_OF_TEXT, END_OF_TEXT),
    "deepseek_r1_distill_qwen": SpecialTokens(
        "<｜▁pad▁｜>",
        "<｜end▁of▁sentence｜>",
        "<｜begin▁of▁sentence｜>",
        ("<｜User｜>", "<｜Assistant｜>"),
    ),
}


def special_tokens_of(template: str) -> SpecialTokens:
    """Of the tokenizers that a template is written for."""
    return BY_TEMPLATE.get(template, CHATML)
