"""What a training writes of its model: which checkpoints stay, what model/ is, and what happens on a full disk."""

import ctypes
import json
import os
import resource
from pathlib import Path

import pytest
import torch
from run_records import checkpoints_of, learned
from safetensors.torch import load_file, save_file
from small_run import STEPS_PER_EPOCH, StopAt, composed, trained, write_chats
from verb_process import SERVER

from ftx import checkpoints, disk
from ftx.checkpoints import Best
from ftx.data.prepare import prepare
from ftx.disk import DiskFull
from ftx.errors import Interrupted
from ftx.loss import evaluate_loss
from ftx.models import load_trained
from ftx.run_folder import RunFolder
from ftx.saving import expected_sizes

pytestmark = pytest.mark.usefixtures("one_thread")

# With this rate the small model is best before the end.
BEST = ("schedule.best_metric=eval_loss", "schedule.learning_rate=0.05", "schedule.epochs=3")


@pytest.fixture(scope="module")
def chats(tmp_path_factory) -> Path:
    return write_chats(tmp_path_factory.mktemp("data") / "chats.jsonl")


def eval_rows(folder):
    return {row["step"]: row["eval_loss"] for row in learned(folder) if "eval_loss" in row}


def test_the_model_is_the_best_checkpoint_which_no_limit_removes(chats, tmp_path):
    run = composed(chats, *BEST, "schedule.keep_checkpoints=1")
    folder, model = trained(run, tmp_path / "run")
    found = eval_rows(folder)
    best = min((step for step in found if step), key=found.get)
    assert best != max(found)
    assert checkpoints_of(folder) == {f"step-{best}", f"step-{max(found)}", "best.json"}
    recorded = json.loads((folder.checkpoints / "best.json").read_text())
    assert recorded == {"step": best, "metric": "eval_loss", "value": found[best]}
    prepared = prepare(run)
    for one in (model, load_trained(folder.model, run, prepared.tokenizer)):
        assert evaluate_loss(one, prepared.evaluation, torch.device("cpu")).mean == found[best]


@pytest.mark.parametrize("stop_at", [2, 11])
def test_interrupted_and_resumed_in_mid_epoch_it_is_the_same_to_the_bit(chats, tmp_path, stop_at):
    """With dropout, so that the random state counts; the checkpoint that the interruption brings, although it is
    evaluated, is no candidate for the best."""
    words = (*BEST, "method=lora", "method.lora.dropout=0.3", "schedule.eval_every=1", "schedule.keep_checkpoints=9")
    run = composed(chats, *words, "data.packing=true", "data.max_length=128", "schedule.global_batch_size=1")
    whole, _ = trained(run, tmp_path / "whole")
    stop = StopAt(2 * stop_at)
    with pytest.raises(Interrupted):
        trained(run, tmp_path / "run", stop=stop, on_row=stop.hear)
    folder = RunFolder(tmp_path / "run")
    assert checkpoints.latest(folder)[0] % len(prepare(run).train)
    trained(run, folder.path)
    assert learned(folder) == learned(whole)
    for name in ("checkpoints/best.json", "model/adapter_model.safetensors"):
        assert (folder.path / name).read_bytes() == (whole.path / name).read_bytes(), name


@pytest.mark.parametrize(("method", "file"), [("full", "model.safetensors"), ("lora", "adapter_model.safetensors")])
def test_weights_of_each_epoch_stay(chats, tmp_path, method, file):
    words = ("schedule.epochs=2", "schedule.save_weights=epoch", "schedule.save_every=5", f"method={method}")
    run = composed(chats, *words, "schedule.keep_checkpoints=2")
    folder, _ = trained(run, tmp_path / "run")
    assert {path.name for path in folder.weights.iterdir()} == {"epoch-1", "epoch-2"}
    for epoch in (1, 2):
        copy = folder.weights / f"epoch-{epoch}"
        of_checkpoint = folder.checkpoints / f"step-{epoch * STEPS_PER_EPOCH}" / file
        assert (copy / file).read_bytes() == of_checkpoint.read_bytes()
        tokenizer = prepare(run).tokenizer
        assert load_trained(copy, run, tokenizer).training is False
        assert (copy / "tokenizer.json").exists()
    assert (folder.model / file).read_bytes() == (folder.weights / "epoch-2" / file).read_bytes()


def written(folder: RunFolder, step: int, kilobytes: int = 1) -> Path:
    """What Trainer leaves of a checkpoint, before it is published."""
    path = checkpoints.writing_folder(folder) / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"weights": torch.zeros(256 * kilobytes)}, path / "model.safetensors")
    (path / "optimizer.pt").write_bytes(b"state")
    return path


def steps_in(folder):
    return [step for step, _ in checkpoints.published(folder)]


def test_the_limit_spares_the_newest_and_the_best(tmp_path):
    folder = RunFolder(tmp_path)
    kept = []
    for step, best in ((1, 1), (2, 1), (3, 1), (4, 4), (5, 4), (6, 4)):
        written(folder, step)
        checkpoints.publish(folder, step, 2, Best(best, "eval_loss", 1.0))
        kept.append(steps_in(folder))
    assert kept == [[1], [1, 2], [1, 3], [3, 4], [4, 5], [4, 6]]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: (path / "optimizer.pt").unlink(), "optimizer.pt is missing"),
        (lambda path: (path / "optimizer.pt").write_bytes(b""), "optimizer.pt has 0 bytes instead of 5"),
        (lambda path: (path / "model.safetensors").write_bytes(b"x" * 1104), "header"),
        (lambda path: (path / checkpoints.MANIFEST).write_text("{"), "line 1"),
    ],
)
def test_a_damaged_checkpoint_is_moved_aside(tmp_path, ftx_log, harm, said):
    folder = RunFolder(tmp_path)
    for step in (1, 2, 3):
        written(folder, step)
        checkpoints.publish(folder, step, 9)
    checkpoints.set_damaged_aside(folder)
    assert ftx_log.lines == []
    for step in (2, 3):
        harm(folder.checkpoints / f"step-{step}")
    checkpoints.set_damaged_aside(folder)
    assert checkpoints.latest(folder) == (1, folder.checkpoints / "step-1")
    assert [said in line for line in ftx_log.lines] == [True, True]
    assert (folder.checkpoints / "damaged-step-3").is_dir()


def test_room_is_made_of_what_may_go(tmp_path, ftx_log):
    folder = RunFolder(tmp_path)
    for step in range(1, 6):
        written(folder, step, kilobytes=10)
        checkpoints.publish(folder, step, 9)
    (folder.checkpoints / "step-1" / "optimizer.pt").unlink()
    (folder.checkpoints / "step-1").rename(folder.checkpoints / "damaged-step-1")
    one, best = disk.size_of(folder.checkpoints / "step-2"), Best(2, "eval_loss", 1.0)
    capacity = disk.size_of(folder.path) + 10

    def free(_):
        return capacity - disk.size_of(folder.path)

    checkpoints.make_room(folder, 10, "it", best, free=free)
    assert ftx_log.lines == []
    checkpoints.make_room(folder, one, "it", best, free=free)
    assert steps_in(folder) == [2, 3, 4, 5]
    assert not list(folder.checkpoints.glob("damaged-*"))
    checkpoints.make_room(folder, one + 100, "it", best, free=free)
    assert steps_in(folder) == [2, 4, 5]
    with pytest.raises(DiskFull, match=r"it takes 0\.1 MiB, 0\.0 MiB are free in .*; the same command then resumes"):
        checkpoints.make_room(folder, 9 * one, "it", best, free=free)
    assert steps_in(folder) == [2, 4, 5]
    assert len(ftx_log.lines) == 2


def test_expected_sizes_are_about_those_that_are_written(chats, tmp_path):
    for method in ("full", "lora"):
        run = composed(chats, "schedule.epochs=1", f"method={method}")
        folder, model = trained(run, tmp_path / method)
        expected = expected_sizes(run, model)
        ((_, checkpoint),) = checkpoints.published(folder)
        for guess, path in ((expected.checkpoint, checkpoint), (expected.model, folder.model)):
            assert disk.size_of(path) <= guess <= disk.size_of(path) + 2**20


@pytest.mark.parametrize("fails", ["model.safetensors", "optimizer.pt"])
def test_a_write_that_fails_leaves_nothing_and_the_run_goes_on_from_the_checkpoint_before(chats, tmp_path, fails):
    """The limit on the size of files, a real error of the system, is set once the first checkpoint is there."""
    run = composed(chats, "schedule.epochs=3", "schedule.save_every=4", "schedule.eval_every=never")
    whole, _ = trained(run, tmp_path / "whole")
    folder = RunFolder(tmp_path / "run")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit():
        if learned(folder)[-1]["step"] == 6:
            size = (folder.checkpoints / "step-4" / fails).stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - 10_000, before[1]))

    try:
        with pytest.raises(DiskFull, match=r"the checkpoint of step 8 could not be written .* resumes from step 4"):
            trained(run, folder.path, on_row=limit)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert checkpoints_of(folder) == {"step-4"}
    trained(run, folder.path)
    assert learned(folder) == learned(whole)
    weights, expected = (load_file(one.model / "model.safetensors") for one in (folder, whole))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


NEW_MOUNTS, NEW_USER = 0x20000, 0x10000000
NO_MOUNT = 77


def mount_tmpfs(path: Path, options: str) -> None:
    """A small file system that only this process and its children see, and that is gone with them."""
    libc = ctypes.CDLL(None, use_errno=True)
    user = os.geteuid()
    if libc.unshare(NEW_MOUNTS | (NEW_USER if user else 0)):
        os._exit(NO_MOUNT)
    if user:
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    # So that the mount is not passed on to where this one came from: MS_REC | MS_PRIVATE.
    libc.mount(None, b"/", None, 0x4000 | 0x40000, None)
    path.mkdir()
    if libc.mount(b"none", str(path).encode(), b"tmpfs", 0, options.encode()):
        os._exit(NO_MOUNT)


def on_a_small_disk(options: str, work, *arguments) -> None:
    """Run ``work`` in a process of its own, which sees the small file system as its first argument."""
    process = SERVER.Process(target=work, args=(options, *arguments))
    process.start()
    process.join(120)
    if process.exitcode == NO_MOUNT:
        pytest.skip("this system lets nobody mount a small file system")
    assert process.exitcode == 0


def fill(folder: Path, leave: int) -> Path:
    """Somebody else's file, which leaves so many bytes of the disk."""
    file = folder / "somebody_else"
    file.write_bytes(b"x" * (disk.free_bytes(folder) - leave))
    return file


def full_while_training(options: str, chats: Path, path: Path) -> None:
    """Refused where it could never fit; stopped when there is no room for a checkpoint, or when the disk takes no more
    files in the middle of one; and it goes on each time."""
    mount_tmpfs(path, options)
    torch.set_num_threads(1)
    run = composed(chats, "schedule.epochs=2", "schedule.save_every=2", "schedule.eval_every=never")
    folder = RunFolder(path / "run")
    other = fill(path, leave=1 << 20)
    with pytest.raises(DiskFull, match=r"this training takes 3\.. MiB \(at least 2 checkpoints .* 1\.0 MiB are free"):
        trained(run, folder.path)
    other.unlink()

    def crowd():
        if learned(folder)[-1]["step"] == 3:
            fill(path, leave=1 << 17)

    with pytest.raises(DiskFull, match=r"the checkpoint of step 4 takes 0\.. MiB, 0\.1 MiB are free in .* step 2"):
        trained(run, folder.path, on_row=crowd)
    assert steps_in(folder) == [2]
    other.unlink()

    def no_files():
        if learned(folder)[-1]["step"] != 7:
            return
        with pytest.raises(OSError, match="No space left"):
            for number in range(10_000):
                (path / f"nothing-{number}").touch()
        (path / "nothing-0").unlink()

    with pytest.raises(DiskFull, match=r"the checkpoint of step 8 could not be written .* resumes from step 6"):
        trained(run, folder.path, on_row=no_files)
    assert checkpoints_of(folder) == {"step-4", "step-6"}
    for file in path.glob("nothing-*"):
        file.unlink()
    trained(run, folder.path)
    whole, _ = trained(run, chats.parent / "whole_beside_the_small_disk")
    assert learned(folder) == learned(whole)
    assert (folder.model / "model.safetensors").read_bytes() == (whole.model / "model.safetensors").read_bytes()


def test_a_disk_that_is_full(chats, tmp_path):
    on_a_small_disk("size=6m,nr_inodes=200", full_while_training, chats, tmp_path / "small")
