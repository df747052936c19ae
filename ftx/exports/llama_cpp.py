"""llama.cpp, through the library that the wheel of ``xllamacpp`` brings: tokens, logits and quantised rows.

The wheel has no Python names for these, but its library exports llama.cpp's own C functions, which are called here. The
two structures that they take are known by the place of each number; a version that has moved them is refused, by
comparing what it fills in by default.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ftx.errors import UserError

TESTED = "2026.10.11549"
# 32-bit words of llama_context_params as its defaults have them; what is set here is at the places below.
_CONTEXT_DEFAULTS = (512, 2048, 512, 1, 0, 0, 1, 4, 4, 0, -1, -1, -1, -1)
_CACHE_DEFAULTS = (1, 1)
_CONTEXT, _BATCH, _MICRO_BATCH, _THREADS, _BATCH_THREADS, _FLASH_ATTENTION, _CACHE_TYPES = 0, 1, 2, 7, 8, 13, 26
_GPU_LAYERS, _MODEL_DEFAULTS = 4, (-1, 1)
_F32 = 0
# Tokens that llama.cpp takes for control tokens by their looks, and most of them for ends, whatever the file says.
LOOKALIKES = frozenset(
    (
        *("</s>", "<eos>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end|>", "<|end_of_text|>", "<|endoftext|>"),
        *("<|eom_id|>", "<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<end_of_utterance>", "<｜end▁of▁sentence｜>"),
        *("<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<|tool_response>", "<|fim_prefix|>", "<|fim_suffix|>"),
        *("<|fim_middle|>", "<|fim_pad|>", "<|fim_repo|>", "<|repo_name|>", "<|file_sep|>", "<fim-prefix>"),
        *("<fim_prefix>", "<fim-suffix>", "<fim_suffix>", "<fim-middle>", "<fim_middle>", "<fim-pad>", "<fim_pad>"),
        *("<fim-repo>", "<reponame>", "<repo>", "<REPO>", "<PRE>", "<SUF>", "<MID>", "<PAD>", "[PAD]", "▁<PRE>"),
        *("▁<SUF>", "▁<MID>", "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
        *("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>", "<|prefix|>", "<|suffix|>", "<|middle|>"),
    )
)
_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_WARNING = 3
MICRO_BATCH = 512


class _Parameters(ctypes.Structure):
    """More room than any of the structures takes: what follows it in a call is nothing."""

    _fields_ = (("words", ctypes.c_int32 * 128),)


class LlamaCpp:
    """A model in a GGUF file, on the processor, with keys and values in 32 bits; to be closed."""

    def __init__(self, file: Path, *, context: int, threads: int) -> None:
        """Raises RuntimeError where llama.cpp cannot load the file."""
        self._library = library()
        parameters = self._library.llama_model_default_params()
        parameters.words[_GPU_LAYERS] = 0
        self._model = self._library.llama_model_load_from_file(str(file).encode(), parameters)
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {file}: {said()}")
        self._vocabulary = self._library.llama_model_get_vocab(self._model)
        self.vocabulary_size: int = self._library.llama_vocab_n_tokens(self._vocabulary)
        parameters = self._library.llama_context_default_params()
        parameters.words[_CONTEXT] = parameters.words[_BATCH] = context
        # What attention is computed in grows with both.
        parameters.words[_MICRO_BATCH] = min(context, MICRO_BATCH)
        parameters.words[_THREADS] = parameters.words[_BATCH_THREADS] = threads
        parameters.words[_FLASH_ATTENTION] = 0
        parameters.words[_CACHE_TYPES] = parameters.words[_CACHE_TYPES + 1] = _F32
        self._context = self._library.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise RuntimeError(f"llama.cpp cannot make a context for {file}: {said()}")

    def close(self) -> None:
        self._library.llama_free(self._context)
        self._library.llama_model_free(self._model)

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        """Control tokens that are spelled out are taken as such."""
        raw = text.encode()
        found = (ctypes.c_int32 * (len(raw) + 16))()
        count = self._library.llama_tokenize(self._vocabulary, raw, len(raw), found, len(found), add_special, True)
        if count < 0:
            raise RuntimeError(f"llama.cpp wants room for {-count} tokens of {len(raw)} bytes")
        return list(found[:count])

    def ends(self, token: int) -> bool:
        """Whether llama.cpp stops generating at it."""
        return bool(self._library.llama_vocab_is_eog(self._vocabulary, token))

    def all_ends(self) -> set[int]:
        return set(filter(self.ends, range(self.vocabulary_size)))

    def controls(self) -> set[int]:
        """What llama.cpp takes for control tokens: those of the file, and others by how they look."""
        size = range(self.vocabulary_size)
        return {token for token in size if self._library.llama_vocab_is_control(self._vocabulary, token)}

    def logits(self, tokens: Sequence[int], *, last: int | None = None) -> np.ndarray:
        """Of what follows each of the ``last`` tokens, by default of all: ``[tokens, vocabulary]`` in 32 bits."""
        self._forget()
        return self._decode(tokens, last=min(last or len(tokens), len(tokens)))

    def answer(self, tokens: Sequence[int], *, most: int, stop: Sequence[int] = ()) -> list[int]:
        """Greedy: the next tokens, up to ``most``, without the one of ``stop`` that ends them."""
        self._forget()
        following = self._decode(tokens)[-1]
        answer: list[int] = []
        while len(answer) < most and (token := int(following.argmax())) not in stop:
            answer.append(token)
            if len(answer) < most:
                following = self._decode([token])[-1]
        return answer

    def _forget(self) -> None:
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)

    def _decode(self, tokens: Sequence[int], *, last: int = 1) -> np.ndarray:
        """Logits after the ``last`` of these tokens, which go on from those before."""
        given = (ctypes.c_int32 * len(tokens))(*tokens)
        wanted = (ctypes.c_int8 * len(tokens))(*[0] * (len(tokens) - last), *[1] * last)
        batch = self._library.llama_batch_get_one(given, len(tokens))
        batch.logits = ctypes.cast(wanted, ctypes.c_void_p)
        if (code := self._library.llama_decode(self._context, batch)) != 0:
            raise RuntimeError(f"llama.cpp gives up {len(tokens)} tokens with {code}: {said()}")
        found = self._library.llama_get_logits(self._context)
        shape = (last, self.vocabulary_size)
        return np.ctypeslib.as_array(found, shape=shape).copy()


class _Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.c_void_p),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.c_void_p),
        ("n_seq_id", ctypes.c_void_p),
        ("seq_id", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
    )


def quantized_rows(rows: np.ndarray, kind: int, block_bytes: int, block: int) -> np.ndarray:
    """Rows of 32-bit floats in one of ggml's types, as bytes ``[rows, bytes of a row]``; by ggml's own function."""
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    count, width = rows.shape
    made = np.empty((count, width // block * block_bytes), dtype=np.uint8)
    written = library().ggml_quantize_chunk(
        kind, rows.ctypes.data_as(ctypes.c_void_p), made.ctypes.data_as(ctypes.c_void_p), 0, count, width, None
    )
    if written != made.nbytes:
        raise RuntimeError(f"ggml wrote {written} bytes for {made.nbytes}")
    return made


_SAID: list[str] = []


def said() -> str:
    """The last warnings and errors of llama.cpp's."""
    return " ".join(_SAID[-3:])


@_LOG_CALLBACK
def _hear(level: int, text: bytes, _: object) -> None:
    if level >= _WARNING:
        _SAID.append(text.decode(errors="replace").strip())


@cache
def library() -> Any:
    """Raises UserError for a version whose structures are not those known here."""
    import xllamacpp

    found = next(Path(xllamacpp.__file__).parent.glob("xllamacpp.abi3.*"), None)
    try:
        loaded: Any = ctypes.CDLL(str(found))
        _declare(loaded)
    except (OSError, AttributeError) as error:
        raise _unknown() from error
    context, model = loaded.llama_context_default_params().words, loaded.llama_model_default_params().words
    is_known = (
        tuple(context[: len(_CONTEXT_DEFAULTS)]) == _CONTEXT_DEFAULTS
        and tuple(context[_CACHE_TYPES : _CACHE_TYPES + 2]) == _CACHE_DEFAULTS
        and tuple(model[_GPU_LAYERS : _GPU_LAYERS + 2]) == _MODEL_DEFAULTS
    )
    if not is_known:
        raise _unknown()
    loaded.llama_log_set(_hear, None)
    loaded.llama_backend_init()
    return loaded


def _unknown() -> UserError:
    return UserError(
        f"export=gguf: xllamacpp {version('xllamacpp')} is not laid out as ftx knows it; "
        f"pip install 'xllamacpp=={TESTED}'"
    )


def _declare(loaded: Any) -> None:
    """Types of what is called; raises AttributeError where the library lacks a function."""
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    signatures: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "llama_backend_init": (None, ()),
        "llama_log_set": (None, (_LOG_CALLBACK, pointer)),
        "llama_model_default_params": (_Parameters, ()),
        "llama_context_default_params": (_Parameters, ()),
        "llama_model_load_from_file": (pointer, (ctypes.c_char_p, _Parameters)),
        "llama_init_from_model": (pointer, (pointer, _Parameters)),
        "llama_model_get_vocab": (pointer, (pointer,)),
        "llama_vocab_n_tokens": (integer, (pointer,)),
        "llama_vocab_is_eog": (ctypes.c_bool, (pointer, integer)),
        "llama_vocab_is_control": (ctypes.c_bool, (pointer, integer)),
        "llama_tokenize": (
            integer,
            (pointer, ctypes.c_char_p, integer, pointer, integer, ctypes.c_bool, ctypes.c_bool),
        ),
        "llama_get_memory": (pointer, (pointer,)),
        "llama_memory_clear": (None, (pointer, ctypes.c_bool)),
        "llama_batch_get_one": (_Batch, (pointer, integer)),
        "llama_decode": (integer, (pointer, _Batch)),
        "llama_get_logits": (ctypes.POINTER(ctypes.c_float), (pointer,)),
        "llama_free": (None, (pointer,)),
        "llama_model_free": (None, (pointer,)),
        "ggml_quantize_chunk": (
            ctypes.c_size_t,
            (integer, pointer, pointer, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, pointer),
        ),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
