"""Which chat template a run uses, and what it renders."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from ftx.environment import CHECKOUT
from ftx.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")

# What a family is recognised by: its template renders these messages and tools as the tokenizer's own does.
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
PROBES: tuple[tuple[list[Any], list[Any] | None], ...] = (
    ([{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}], None),
    (
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nTwo."},
            {"role": "user", "content": "Three?"},
            {"role": "assistant", "content": "Four."},
        ],
        None,
    ),
    (
        [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "name": "add", "content": "2"},
            {"role": "assistant", "content": "Two."},
        ],
        [TOOL],
    ),
)


OWN = "own"


@dataclass(frozen=True)
class Template:
    """A Jinja chat template with generation marks, and where it came from; ``thinking`` is ``data.thinking``."""

    name: str
    text: str
    thinking: str = "template"

    @property
    def is_foreign(self) -> bool:
        """Whether it came with a tokenizer, perhaps from a hub, and not from templates/."""
        return self.name == OWN


def names_of_templates() -> list[str]:
    """The families that templates/ has a template for."""
    return sorted(file.stem for file in (CHECKOUT / "templates").glob("*.jinja"))


def load_template(name: str) -> Template:
    """The family's template from templates/."""
    text = (CHECKOUT / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
    if not MARKS.search(text):
        raise UserError(f"templates/{name}.jinja has no {{% generation %}} marks, so no token would be learned from")
    return Template(name, text)


def choose_template(wanted: str, tokenizer: "PreTrainedTokenizerBase") -> Template:
    """``wanted`` by name; for ``auto`` the tokenizer's own where it has marks, else the one that renders the same."""
    if wanted != "auto":
        return load_template(wanted)
    own = tokenizer.chat_template
    if isinstance(own, str) and MARKS.search(own):
        return Template(OWN, own)
    known = names_of_templates()
    if isinstance(own, str):
        special = tokenizer.special_tokens_map
        theirs = _rendered(own, special)
        agreeing = [one for one in map(load_template, known) if _agree(_rendered(one.text, special), theirs)]
        # Some differ only in how they open an answer.
        asked = _rendered(own, special, add_generation_prompt=True)
        alike = [one for one in agreeing if _agree(_rendered(one.text, special, add_generation_prompt=True), asked)]
        if agreeing:
            return (alike or agreeing)[0]
    lack = "has no generation marks, and none here renders the same" if own else "is missing"
    raise UserError(
        f"model.template=auto: the tokenizer's own template {lack}; choose model.template={'|'.join(known)}"
    )


def _rendered(text: str, special_tokens: Mapping[str, Any], *, add_generation_prompt: bool = False) -> list[str | None]:
    """Each probe as a template renders it, None where it refuses."""
    variables = {**special_tokens, "add_generation_prompt": add_generation_prompt}
    return [_rendered_probe(text, messages, tools, variables) for messages, tools in PROBES]


def _rendered_probe(
    text: str, messages: list[Any], tools: list[Any] | None, variables: Mapping[str, Any]
) -> str | None:
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        return render_jinja_template(conversations=[messages], tools=tools, chat_template=text, **variables)[0][0]
    except (TemplateError, TypeError):
        return None


def _agree(ours: Sequence[str | None], theirs: Sequence[str | None]) -> bool:
    """Whether ours renders the same; it may refuse what theirs drops without a word, such as tools, but not all."""
    return any(ours) and all(our in (None, their) for our, their in zip(ours, theirs, strict=True))


def with_thinking(template: Template, thinking: str) -> Template:
    """The template with ``data.thinking``; raises UserError for one that strips reasoning and cannot be told not to."""
    if thinking == "keep" and "</think>" in template.text and "keep_thinking" not in template.text:
        raise UserError(
            f"data.thinking=keep: the tokenizer's own template strips <think> itself; choose the family's with "
            f"model.template={'|'.join(names_of_templates())}"
        )
    return replace(template, thinking=thinking)
