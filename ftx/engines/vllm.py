"""vLLM answers: the fastest on GPUs. It takes the device's memory for itself, so it loads the model from disk."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from ftx.config.schema import RunConfig
from ftx.data.conversation import Conversation
from ftx.data.tokenize import stop_ids, tokenize_questions
from ftx.engines.engine import Answer, OnAnswer, Request
from ftx.errors import UserError
from ftx.templates import Template

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class VllmEngine:
    """Prompts go in as ftx's own tokens, so that the template is the one of training."""

    def __init__(
        self, run: RunConfig, trained: Path | None, tokenizer: PreTrainedTokenizerFast, template: Template
    ) -> None:
        """``trained``: the run's model, or adapter; None for the base model. Raises UserError without the package."""
        try:
            from vllm import LLM
            from vllm.lora.request import LoRARequest
        except ImportError as error:
            raise UserError(
                "evaluation.engine=vllm: needs the vllm package and a GPU; pip install vllm, or leave the word out"
            ) from error
        adapter = trained is not None and (trained / "adapter_config.json").exists()
        self._adapter = LoRARequest("trained", 1, str(trained)) if adapter else None
        self._tokenizer, self._template = tokenizer, template
        self._engine: Any = LLM(
            model=str(run.model.name if adapter or trained is None else trained),
            revision=run.model.revision if adapter or trained is None else None,
            skip_tokenizer_init=True,
            dtype=DTYPES[run.hardware.precision],
            max_num_seqs=run.evaluation.batch_size,
            enable_lora=adapter,
            max_lora_rank=max(16, run.method.lora.rank),
            seed=run.seed,
        )

    def answer(self, requests: Sequence[Request], on_answer: OnAnswer | None = None) -> list[Answer]:
        from vllm import SamplingParams, TokensPrompt

        asked = [Conversation(request.id, request.messages, request.tools) for request in requests]
        prompts = tokenize_questions(asked, self._tokenizer, self._template)
        ends = stop_ids(self._tokenizer, self._template)
        wishes = [
            SamplingParams(
                temperature=request.temperature,
                top_p=request.top_p,
                max_tokens=request.max_new_tokens,
                seed=request.drawn_by % 2**31,
                stop_token_ids=ends,
                detokenize=False,
            )
            for request in requests
        ]
        began = time.time()
        outputs = self._engine.generate(
            [TokensPrompt(prompt_token_ids=prompt) for prompt in prompts], wishes, lora_request=self._adapter
        )
        ended = time.time()
        answers = []
        for place, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
            said = [token for token in output.outputs[0].token_ids if token not in ends]
            text = self._tokenizer.decode(said, skip_special_tokens=False)
            finish = "length" if output.outputs[0].finish_reason == "length" else "stop"
            answers.append(Answer(text, len(said), len(prompt), began, ended, finish))  # type: ignore[arg-type]
            if on_answer:
                on_answer(place, answers[-1])
        return answers
