"""``export=[…]``: a group of which several choices go together, and what of it cannot be."""

import re

import pytest

from ftx.config.compose import compose, compose_all
from ftx.config.export_checks import asked_exports
from ftx.config.help import render
from ftx.config.identity import identity_keys
from ftx.errors import UserError

LORA = ("model=tiny", "method=lora")


def test_several_choices_go_together():
    run = compose(*LORA, "export=[merge,gguf]", "export.quantization=[q4_k_m,q8_0]")
    assert asked_exports(run) == ["merge", "gguf-q4_k_m", "gguf-q8_0"]
    assert asked_exports(compose(*LORA, "export=gguf")) == ["merge", "gguf-f16"]
    assert asked_exports(compose("model=tiny", "method=full", "export=[gguf]")) == ["gguf-f16"]
    assert asked_exports(compose(*LORA, "export=[]")) == asked_exports(compose(*LORA)) == []


@pytest.mark.parametrize(
    ("experiment", "words", "made"),
    [
        ("deepseek_r1_math_science", [], ["merge"]),
        ("deepseek_r1_math_science", ["export=[]"], []),
        ("deepseek_r1_math_science", ["export=[card]"], ["card"]),
        ("deepseek_r1_math_science", ["method=full", "export=[]"], []),
        ("deepseek_r1_math_science", ["schedule.epochs=0", "export=[]"], []),
        ("glaive_function_calling", ["export=[merge]"], ["merge"]),
        ("glaive_function_calling", ["export=[]", "schedule.epochs=0"], []),
        ("glaive_function_calling", ["export=[gguf]", "method=full", "export.quantization=[q8_0]"], ["gguf-q8_0"]),
        ("glaive_function_calling_debug", ["export=[merge]"], ["merge"]),
    ],
)
@pytest.mark.parametrize("debug", [[], ["debug=tiny"]])
def test_what_an_experiment_exports_is_a_choice_that_words_make_anew(experiment, words, made, debug):
    """Also its export.quantization binds nobody then."""
    assert asked_exports(compose(f"experiment={experiment}", *words, *debug)) == made


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=deepseek_r1_math_science", "method=full"],
        ["experiment=glaive_function_calling", "method=full"],
        ["experiment=deepseek_r1_math_science", "schedule.epochs=0"],
        [*LORA, "export=[merge,card]", "method=full"],
    ],
)
def test_the_way_out_is_one(words):
    """Followed as it is written."""
    with pytest.raises(UserError) as caught:
        compose(*words)
    (way,) = re.findall(r"export=\[[\w,]*\]", str(caught.value))
    said = [word for word in words if not word.startswith("export=")]
    assert "merge" not in asked_exports(compose(*said, way))


def test_exporting_is_no_part_of_what_a_run_is():
    assert identity_keys(compose(*LORA, "export=[merge,gguf]")) == identity_keys(compose(*LORA))


def test_a_sweep_over_something_else_goes_on_working():
    runs = compose_all([*LORA, "export=[merge]", "seed=1,2"], multirun=True).runs
    assert [composed.run.seed for composed in runs] == [1, 2]
    assert all(composed.run.export.merge for composed in runs)


def test_help_names_the_choices():
    said = render("train", "")
    assert "export=\n  card" in said
    assert "  merge" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            (*LORA, "export=[merg]"),
            "export=merg: no such choice (did you mean merge?); there are card, gguf, hub, merge",
        ),
        ((*LORA, "export=mrge"), "export=mrge: no such choice (did you mean merge?)"),
        ((*LORA, "export=[1]"), "export=[1]: no such choice"),
        ((*LORA, "export=null"), "export=null: no such choice"),
        (("model=tiny", "export=merge"), "method=full has no adapter to merge"),
        ((*LORA, "export=merge", "schedule.epochs=0"), "schedule.epochs=0 trains nothing, so there is no model/"),
        ((*LORA, "export=gguf", "export.quantization=[q4]"), "export.quantization=[q4]: no such value"),
        ((*LORA, "export=gguf", "export.quantization=[]"), "export=gguf needs at least one of f32, f16"),
        ((*LORA, "export=gguf", "export.quantization=[f16,f16]"), "names one of them twice"),
        ((*LORA, "export.quantization=[f16]"), "nothing in this run reads it, only export=gguf does"),
        ((*LORA, "export=hub"), "export=hub needs export.repository=OWNER/NAME"),
        ((*LORA, "export=hub", "export.repository=me"), "not a name on the hub; write OWNER/NAME"),
        ((*LORA, "export=hub", "export.repository=a/b", "export.upload=[mode]"), "(did you mean model?)"),
        ((*LORA, "export.repository=a/b"), "nothing in this run reads it, only export=hub does"),
        ((*LORA, "export.check=false"), "nothing in this run reads it, only export=merge, export=gguf and"),
    ],
)
def test_what_cannot_be_is_said(words, said):
    with pytest.raises(UserError) as caught:
        compose_all(list(words))
    assert said in str(caught.value)


def test_choices_that_go_together_are_not_swept():
    with pytest.raises(UserError, match=r"its choices go together in one run; write export=\[merge,gguf\]"):
        compose_all([*LORA, "export=merge,gguf"], multirun=True)
