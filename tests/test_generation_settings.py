"""A trained model, loaded by transformers alone, ends its answers, whatever its base ended texts with."""

import json

import pytest
from peft import AutoPeftModelForCausalLM
from talkative import write_talkative
from tiny_training import on, train_in
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from ftx.config.compose import compose

pytestmark = pytest.mark.usefixtures("one_thread")

LONGEST = 40


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """As many are before any fine-tuning: texts end, turns do not."""
    folder = write_talkative(tmp_path_factory.mktemp("bases") / "base")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)
    # As some on the hub have it: transformers loads it, and refuses to save it.
    settings = GenerationConfig(eos_token_id=tokenizer.eos_token_id, top_k=7)
    settings.to_json_file(folder / "generation_config.json")
    return folder


@pytest.fixture(scope="module")
def one_answer(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "chats.jsonl"
    rows = [{"prompt": f"w{number}", "completion": "the sky"} for number in range(24)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("method", ["full", "lora"])
def test_answers_end_where_the_template_ends_them(base, one_answer, tmp_path, method):
    words = ("model=hub", f"model.name={base}", "model.template=chatml", f"method={method}", "schedule.epochs=6")
    train_in(tmp_path / "run", compose(*on(one_answer), *words, "schedule.learning_rate=1e-2", "tracking.offline=true"))
    folder = tmp_path / "run" / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text, turn = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    assert text != turn
    settings = GenerationConfig.from_pretrained(folder)
    assert (settings.eos_token_id, settings.top_k) == (sorted([text, turn]), 7)
    loads = AutoPeftModelForCausalLM if method == "lora" else AutoModelForCausalLM
    # peft asks the base what ends an answer, so that a caller says it.
    said = {"eos_token_id": settings.eos_token_id} if method == "lora" else {}
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "w3"}], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    answer = loads.from_pretrained(folder).generate(**prompt, max_new_tokens=LONGEST, do_sample=False, **said)
    assert tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :]) == "the sky<|im_end|>"
