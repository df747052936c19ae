"""Weights that are read one tensor at a time, and written the same way: no more than one of them is in memory."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from ftx.errors import UserError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# As the format spells them.
FORMATS = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.bool: "BOOL",
}
TYPES = {name: dtype for dtype, name in FORMATS.items()}
SHARD_BYTES = 4 << 30


@dataclass(frozen=True)
class Tensor:
    """One of a model's weights: what it is, and how to get it."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]

    @property
    def bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def tensors_in(folder: Path) -> dict[str, Tensor]:
    """The weights of a folder in Hugging Face layout, by name; raises UserError where there are no safetensors."""
    if (folder / INDEX).exists():
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        files = sorted(set(index["weight_map"].values()))
    elif (folder / SINGLE).exists():
        files = [SINGLE]
    else:
        raise UserError(f"{folder}: has no weights in safetensors, which exporting reads tensor by tensor")
    found: dict[str, Tensor] = {}
    for file in files:
        with safe_open(folder / file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                part = opened.get_slice(name)
                found[name] = Tensor(
                    name, tuple(part.get_shape()), TYPES[part.get_dtype()], _reader(folder / file, name)
                )
    return found


def tensors_of(weights: Mapping[str, torch.Tensor]) -> dict[str, Tensor]:
    """The same for weights in memory."""
    return {name: Tensor(name, tuple(one.shape), one.dtype, _in_memory(one)) for name, one in weights.items()}


def _in_memory(weights: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: weights


def _reader(file: Path, name: str) -> Callable[[], torch.Tensor]:
    """Opens the file anew each time: as long as it stays open, all that was read of it counts as memory in use."""

    def read() -> torch.Tensor:
        with safe_open(file, "pt") as opened:
            weights: torch.Tensor = opened.get_tensor(name)
            return weights.clone()

    return read


def write_tensors(folder: Path, tensors: Iterable[Tensor], shard_bytes: int = SHARD_BYTES) -> None:
    """Write them into ``folder`` in shards of at most so many bytes, with an index where there are several.

    safetensors' own ``save_file`` takes a whole shard, and needs it twice in memory.
    """
    shards = _shards(tensors, shard_bytes)
    count = len(shards)
    names = [SINGLE] if count == 1 else [f"model-{at:05}-of-{count:05}.safetensors" for at in range(1, count + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, shard)
    if count > 1:
        places = {one.name: name for name, shard in zip(names, shards, strict=True) for one in shard}
        total = sum(one.bytes for shard in shards for one in shard)
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _shards(tensors: Iterable[Tensor], most: int) -> list[list[Tensor]]:
    shards: list[list[Tensor]] = [[]]
    filled = 0
    for one in tensors:
        if shards[-1] and filled + one.bytes > most:
            shards.append([])
            filled = 0
        shards[-1].append(one)
        filled += one.bytes
    return shards


def _write_shard(file: Path, tensors: list[Tensor]) -> None:
    """The format: the header's length in 8 bytes, the header as JSON, and the numbers in the header's order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for one in tensors:
        header[one.name] = {"dtype": FORMATS[one.dtype], "shape": one.shape, "data_offsets": (end, end + one.bytes)}
        end += one.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as written:
        written.write(len(text).to_bytes(8, "little") + text)
        for one in tensors:
            weights = one.read()
            if weights.dtype != one.dtype or tuple(weights.shape) != one.shape:
                raise ValueError(f"{one.name} is {weights.dtype} {tuple(weights.shape)}, not as announced")
            written.write(weights.contiguous().reshape(-1).view(torch.uint8).numpy().data)
