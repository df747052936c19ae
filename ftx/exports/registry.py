"""MLflow's model registry: a run's model as a version under a name, which MLflow loads and asks by itself."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ftx import progress
from ftx.config.export_schema import ExportConfig
from ftx.config.schema import RunConfig
from ftx.disk import DiskFull, free_bytes, in_words, size_of
from ftx.errors import ExportFailed, UserError
from ftx.exports.apart import ask_apart
from ftx.exports.card import write_card
from ftx.exports.parts import CARD, check_passed, hash_of, is_adapter, parts_there, place_of
from ftx.mlflow_names import RUN_TAG
from ftx.precision import starting_type
from ftx.redaction import redacted
from ftx.run_folder import RunFolder
from ftx.tracking import brief, client, exists, failures

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

# Of a version: what was registered, by its content.
CONTENT_TAG, PART_TAG, CHECKED_TAG = "ftx.content", "ftx.part", "ftx.checked"
# MLflow's chat task: messages in, an answer out, as OpenAI's API has them; the signature follows from it.
TASK = "llm/v1/chat"
SMALL_FILES = 32 << 20


@dataclass(frozen=True)
class Registered:
    """A version in the registry; ``is_new`` is False where the same content of the run was there already."""

    name: str
    version: str
    part: str
    is_new: bool
    is_checked: bool
    """Whether what MLflow loads was compared with the trained model."""

    @property
    def uri(self) -> str:
        """What MLflow loads it by."""
        return f"models:/{self.name}/{self.version}"


def register(folder: RunFolder, run: RunConfig, export: ExportConfig) -> Registered:
    """Register the merged model where there is one, else ``model/``, under ``export.register``; once for each content.

    Raises UserError, and ExportFailed where MLflow does not answer, or what it loads answers otherwise.
    """
    name = str(export.register)
    part = "merged" if "merged" in parts_there(folder) else "model"
    check_passed(folder, part)
    try:
        return _register(folder, run, export, name, part)
    except failures() as error:
        said = redacted(f"export.register={name}: MLflow at {run.tracking.uri} does not do it ({brief(error)})")
        raise ExportFailed(said) from error


def _register(folder: RunFolder, run: RunConfig, export: ExportConfig, name: str, part: str) -> Registered:
    mlflow = client(run.tracking)
    mlflow_run = _run_in_mlflow(mlflow, folder)
    place = place_of(folder, part)
    content = content_of(place)
    known = _version_of(mlflow, name, folder, content)
    if known is not None:
        return _once_more(folder, export, part, mlflow, known)
    write_card(folder, run, export)
    _check_room(mlflow, mlflow_run, place, name)
    model_id = _log(folder, run, part, mlflow, mlflow_run)
    if export.check:
        check_registered(folder, part, f"models:/{model_id}")
    else:
        progress.say(f"{name}: not compared with the trained model (export.check=false)")
    checked = {CHECKED_TAG: "true"} if export.check else {}
    folder.check_ours()
    _ensure_name(mlflow, name)
    tags = {RUN_TAG: folder.name, CONTENT_TAG: content, PART_TAG: part, **checked}
    with _tracked_at(run.tracking.uri):
        made = mlflow.create_model_version(name, f"models:/{model_id}", run_id=mlflow_run, tags=tags, model_id=model_id)
    registered = Registered(name, str(made.version), part, is_new=True, is_checked=export.check)
    progress.say(f"{name}: version {registered.version} is this run's {part}; MLflow loads it as {registered.uri}")
    return registered


def _once_more(
    folder: RunFolder, export: ExportConfig, part: str, mlflow: "MlflowClient", known: "ModelVersion"
) -> Registered:
    """A version that is there already is at most compared, where it was not when it was made."""
    is_checked, version = known.tags.get(CHECKED_TAG) == "true", str(known.version)
    if export.check and not is_checked:
        check_registered(folder, part, f"models:/{known.name}/{version}")
        mlflow.set_model_version_tag(known.name, version, CHECKED_TAG, "true")
        is_checked = True
    progress.say(f"{known.name}: version {version} is this run's {part} already, nothing to do")
    return Registered(known.name, version, part, is_new=False, is_checked=is_checked)


def content_of(place: Path) -> str:
    """A hash over names and contents of what a model is loaded from; cards do not count."""
    files = sorted(file for file in place.iterdir() if file.is_file() and file.name != CARD)
    listed = "\n".join(f"{file.name} {hash_of(file, hashlib.sha256())}" for file in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def _run_in_mlflow(mlflow: "MlflowClient", folder: RunFolder) -> str:
    known = folder.read_status().mlflow_run_id
    if known is None or not exists(mlflow, known):
        raise UserError(
            f"export.register: {folder.name} is not in this MLflow; python -m ftx.report --sync {folder.name} sends it"
        )
    return known


def _version_of(mlflow: "MlflowClient", name: str, folder: RunFolder, content: str) -> "ModelVersion | None":
    """The one that this run's model is registered as."""
    quoted = name.replace("'", "''")
    versions = mlflow.search_model_versions(f"name='{quoted}'")
    same = [one for one in versions if (one.tags.get(RUN_TAG), one.tags.get(CONTENT_TAG)) == (folder.name, content)]
    return same[0] if same else None


def _ensure_name(mlflow: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        mlflow.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _check_room(mlflow: "MlflowClient", mlflow_run: str, place: Path, name: str) -> None:
    """MLflow writes a model into a temporary folder and copies it from there."""
    size = size_of(place) + SMALL_FILES
    artifacts = str(mlflow.get_run(mlflow_run).info.artifact_uri)
    folders = [Path(tempfile.gettempdir())]
    if urlsplit(artifacts).scheme in ("", "file"):
        folders.append(Path(unquote(urlsplit(artifacts).path)))
    progress.say(f"{name}: {in_words(size_of(place))} go into MLflow's artifacts")
    devices: dict[int, list[Path]] = {}
    for one in folders:
        devices.setdefault(_existing(one).stat().st_dev, []).append(one)
    for there in devices.values():
        if free_bytes(there[0]) < size * len(there):
            raise DiskFull(
                f"export.register={name}: takes {in_words(size * len(there))} in {' and '.join(map(str, there))}, "
                f"{in_words(free_bytes(there[0]))} are free; make room, or set TMPDIR to another disk"
            )


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


def _log(folder: RunFolder, run: RunConfig, part: str, mlflow: "MlflowClient", mlflow_run: str) -> str:
    """The model among those of its run in MLflow; returns MLflow's id of it."""
    import transformers
    from huggingface_hub import ModelCard
    from mlflow.transformers import log_model

    place = place_of(folder, part)
    loaded, ends, options = _load(folder, run, place)
    experiment = mlflow.get_run(mlflow_run).info.experiment_id
    logged = mlflow.create_logged_model(experiment, name=part, source_run_id=mlflow_run, tags={RUN_TAG: folder.name})
    with _tracked_at(run.tracking.uri):
        log_model(
            loaded,
            model_id=logged.model_id,
            run_id=mlflow_run,
            name=part,
            task=TASK,
            # transformers' pipelines draw unless they are told not to; MLflow's chat has no word for either. It renders
            # the template to text, which has its begin token already.
            model_config={"do_sample": False, "eos_token_id": ends, "add_special_tokens": False},
            # Its own would be looked up on the hub, and the packages be guessed by loading the model once more.
            model_card=ModelCard.load(place / CARD),
            pip_requirements=[f"transformers=={transformers.__version__}", "torch", "accelerate", "peft"],
            **options,
        )
    return str(logged.model_id)


def _load(folder: RunFolder, run: RunConfig, place: Path) -> tuple[dict[str, Any], list[int], dict[str, Any]]:
    """Model and tokenizer as MLflow takes them, the tokens that end an answer, and what else there is to know."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ftx.chatting.loading import template_in
    from ftx.data.tokenize import stop_ids

    tokenizer: Any = AutoTokenizer.from_pretrained(place)
    ends = stop_ids(tokenizer, template_in(run, tokenizer))
    options: dict[str, Any] = {}
    model: Any
    if is_adapter(place):
        from peft import PeftModel

        base = _base_folder(run)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=starting_type(run))
        model = PeftModel.from_pretrained(model, place)
        options = {"base_model_path": str(base)}
        progress.say(f"the adapter alone is registered: whoever loads it needs its base at {base}, or base_model_path=")
    else:
        model = AutoModelForCausalLM.from_pretrained(place, dtype="auto")
        # No path of this machine, nor anything that a hub would be asked about.
        model.name_or_path = f"run {folder.name}"
    return {"model": model, "tokenizer": tokenizer}, ends, options


def _base_folder(run: RunConfig) -> Path:
    """Where the weights lie that an adapter belongs to."""
    from huggingface_hub import snapshot_download

    if run.model.weights == "random":
        raise UserError(
            "export.register: the base of this adapter was made from the seed and lies nowhere; merge it first: "
            "python -m ftx.export RUN merge"
        )
    if run.method.name == "qlora":
        raise UserError(
            "export.register: MLflow would put this adapter on its base as it is, not in the 4 bits that it was "
            "trained on; merge it first: python -m ftx.export RUN merge"
        )
    folder = Path(str(run.model.name)).expanduser()
    return folder if folder.is_dir() else Path(snapshot_download(str(run.model.name), revision=run.model.revision))


@contextmanager
def _tracked_at(uri: str) -> Iterator[None]:
    """Where models are concerned, MLflow looks at the one server of the process, whatever client is asked."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def check_registered(folder: RunFolder, part: str, model: str) -> None:
    """``model``: what MLflow loads it by. Raises ExportFailed where its answers are not those of the trained one."""
    different = ask_apart("ftx.exports.registry_check", [str(folder.path), part, model], "what was registered")
    if different:
        question, trained, registered = different[0]
        raise ExportFailed(
            f"what MLflow loads is not the model that was trained, and counts as not registered: asked {question!r} it "
            f"says {registered!r} in place of {trained!r}"
        )
