"""What a run's folder will hold, and has to have room for."""

from dataclasses import dataclass

from ftx.config.model_schema import ArchitectureConfig
from ftx.config.parallel import strategy_of, zero_stage
from ftx.config.schema import RunConfig
from ftx.planning.numbers import BYTES, numbers_of
from ftx.planning.states import NUMBERS_A_SCALE, Parameters, count

# Random states, Trainer's own record, configurations, and a tokenizer with an entry's text and its merges.
SMALL_FILES, TOKENIZER_ENTRY = 1 << 20, 75
METRICS_ROW = 500
# Of a number in a file for llama.cpp: blocks with their scales, and the mixes of types that it names _m.
FILE_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q6_k": 210 / 256, "q5_k_m": 0.71, "q4_k_m": 0.61}


@dataclass(frozen=True)
class Disk:
    """Bytes. ``most``: at the fullest moment, when a checkpoint is written before an old one goes.

    ``exports`` come on top: the merged model and the files for llama.cpp.
    """

    model: float
    checkpoint: float
    most: float
    end: float
    exports: float = 0.0


def disk_of(
    run: RunConfig, architecture: ArchitectureConfig, parameters: Parameters, steps: int | None, epochs: int
) -> Disk:
    """Of a training of so many steps and epochs; as ``ftx.saving`` expects it before there is a first checkpoint.

    ``steps``: None where nobody knows how much data there is.
    """
    if run.schedule.epochs == 0:
        return Disk(0, 0, SMALL_FILES, SMALL_FILES)
    schedule = run.schedule
    model = _weights(run, parameters) + TOKENIZER_ENTRY * architecture.vocabulary_size + SMALL_FILES
    checkpoint = _checkpoint(run, parameters) + SMALL_FILES
    saves = _saves(run, steps, epochs)
    copies = epochs if schedule.save_weights == "epoch" else 0
    kept = min(saves, schedule.keep_checkpoints + (1 if schedule.best_metric else 0))
    metrics = METRICS_ROW * (steps or 0) / schedule.log_every + SMALL_FILES
    end = model + kept * checkpoint + copies * model + metrics
    most = end + (checkpoint if saves > kept else 0)
    return Disk(model, checkpoint, most, end, _exports(run, parameters))


def _exports(run: RunConfig, parameters: Parameters) -> float:
    whole, export = count(parameters.base), run.export
    merges = run.method.name != "full" and (export.merge or export.gguf)
    merged = BYTES[run.hardware.precision] * whole if merges else 0.0
    return merged + sum(FILE_BYTES[kind] * whole for kind in export.quantization if export.gguf)


def _weights(run: RunConfig, parameters: Parameters) -> float:
    if zero_stage(strategy_of(run)):
        return float(BYTES[run.hardware.precision] * count(parameters.trained))
    return float(numbers_of(run).trained * count(parameters.trained))


def _checkpoint(run: RunConfig, parameters: Parameters) -> float:
    """Weights, and two moments of each number that is trained; ZeRO adds 32-bit weights and writes its own again."""
    trained, weights = count(parameters.trained), _weights(run, parameters)
    if zero_stage(strategy_of(run)):
        return 2 * weights + 12 * trained
    if "8bit" in run.method.optimizer:
        return weights + 2 * trained * (1 + 4 / NUMBERS_A_SCALE)
    return weights + 2 * numbers_of(run).trained * trained


def _saves(run: RunConfig, steps: int | None, epochs: int) -> int:
    """With unknown steps more than stay in any case."""
    schedule = run.schedule
    if schedule.save_every == "never":
        return int(schedule.best_metric is not None)
    if schedule.save_every == "epoch":
        return epochs
    return schedule.keep_checkpoints + 2 if steps is None else -(-steps // int(schedule.save_every))
