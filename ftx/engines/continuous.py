"""The model in this process answers with continuous batching: who is done makes place for the next at once."""

import time
from collections.abc import Sequence

from transformers import ContinuousBatchingConfig, GenerationConfig

from ftx.data.tokenize import stop_ids
from ftx.engines.engine import Answer, OnAnswer, failed
from ftx.engines.local import Asked, LocalEngine
from ftx.generation import ready_to_answer

# Tokens of one block of the cache; on a CPU the cache has room for batch_size of the longest, on a GPU the library asks
# the device.
BLOCK = 64


class ContinuousEngine(LocalEngine):
    """By transformers' own scheduler and paged cache; greedy, with the answers of ``LocalEngine``."""

    def _answer(self, asked: Sequence[Asked], batch_size: int, hear: OnAnswer) -> None:
        most = asked[0][1].max_new_tokens
        settings = GenerationConfig(
            max_new_tokens=most,
            do_sample=False,
            eos_token_id=stop_ids(self._tokenizer, self._template) or None,
            pad_token_id=self._tokenizer.pad_token_id or 0,
        )
        began = time.time()
        with (
            ready_to_answer(self._model),
            self._model.continuous_batching_context_manager(  # type: ignore[operator]
                generation_config=settings, continuous_batching_config=self._cache(asked, batch_size), block=True
            ) as manager,
        ):
            names = manager.add_requests(inputs=[list(prompt) for *_, prompt in asked], max_new_tokens=most)
            waiting = dict(zip(names, asked, strict=True))
            while waiting and manager.is_running():
                result = manager.get_result(timeout=1)
                if result is None or not result.is_finished():
                    continue
                place, _, prompt = waiting.pop(result.request_id)
                ended = time.time()
                hear(place, self._read(result.generated_tokens, prompt, most, began, ended, result.error))
        for place, *_ in waiting.values():
            hear(place, failed("continuous batching ended before it was answered"))

    def _read(
        self, tokens: list[int], prompt: list[int], most: int, began: float, ended: float, error: str | None
    ) -> Answer:
        if error:
            return failed(error)
        ends = set(stop_ids(self._tokenizer, self._template))
        said = tokens[:-1] if tokens and tokens[-1] in ends else tokens
        (text,) = self._tokenizer.batch_decode([said], skip_special_tokens=False)
        return Answer(text, len(said), len(prompt), began, ended, "length" if len(said) == most else "stop")

    def _cache(self, asked: Sequence[Asked], batch_size: int) -> ContinuousBatchingConfig:
        if self._model.device.type != "cpu":
            return ContinuousBatchingConfig()
        longest = max(len(prompt) + request.max_new_tokens for _, request, prompt in asked)
        blocks = min(batch_size, len(asked)) * (longest // BLOCK + 1)
        return ContinuousBatchingConfig(
            page_size=BLOCK, num_blocks=blocks, max_batch_tokens=max(longest, min(4096, blocks * BLOCK))
        )
