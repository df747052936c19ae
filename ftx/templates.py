"""Which chat template a run uses, and what it renders."""

import re
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ftx.environment import CHECKOUT
from ftx.errors import UserError

MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")

# What a checkpoint's own model type says about the family whose template fits it.
FAMILY_OF_MODEL_TYPE = {"qwen3": "qwen3_instruct_2507"}


@dataclass(frozen=True)
class Template:
    """A Jinja chat template with generation marks, and where it came from."""

    name: str
    text: str


def load_template(name: str) -> Template:
    """The family's template from templates/."""
    text = (CHECKOUT / "templates" / f"{name}.jinja").read_text(encoding="utf-8")
    if not MARKS.search(text):
        raise UserError(f"templates/{name}.jinja has no {{% generation %}} marks, so no token would be learned from")
    return Template(name, text)


def choose_template(wanted: str, tokenizer: PreTrainedTokenizerBase, model_type: str) -> Template:
    """``wanted`` by name; for ``auto`` the tokenizer's own where it has marks, else the one of the model's family."""
    if wanted != "auto":
        return load_template(wanted)
    own = tokenizer.chat_template
    if isinstance(own, str) and MARKS.search(own):
        return Template("own", own)
    if model_type in FAMILY_OF_MODEL_TYPE:
        return load_template(FAMILY_OF_MODEL_TYPE[model_type])
    known = ", ".join(sorted(file.stem for file in (CHECKOUT / "templates").glob("*.jinja")))
    raise UserError(
        f"model.template=auto: the tokenizer's own template has no generation marks and nothing is known of the family "
        f"'{model_type}'; choose model.template={known}"
    )
