"""``launcher.dry_run=true`` prints what would be submitted, also where SLURM is not: compared with records."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ftx.config.compose import compose
from ftx.config.stored import run_to_yaml
from ftx.environment import CHECKOUT

ENVIRONMENT = "# ---- environment: that of this shell (sbatch --export=ALL), with what the script sets and unsets\n"
RECORDS = Path(__file__).parent / "records"
ROWS = [{"messages": [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "2"}]}] * 40
PLAIN = ("data=jsonl", "data.path=rows.jsonl", "launcher=slurm", "launcher.dry_run=true")
TWO_NODES = ("hardware=8xH100", "hardware.nodes=2", "schedule.global_batch_size=16")
CASES = {
    "one_run": (),
    "sweep_of_two_shapes": ("-m", "hardware=cpu,1xH100", "schedule.epochs=1,2", "launcher.parallel=1"),
    "everything_set": (
        *TWO_NODES,
        "launcher.partition=gpu",
        "launcher.account=team",
        "launcher.qos=high",
        "launcher.memory=900G",
        "launcher.cpus_per_task=12",
        "launcher.constraint='h100&nvlink'",
        "launcher.exclusive=true",
        "launcher.time_min=600",
        "launcher.warning_s=300",
        "launcher.setup=['module load cuda/13', 'export NCCL_DEBUG=WARN']",
        "launcher.sbatch={reservation: spring-sale, nice: 100, contiguous: true}",
        "launcher.srun={cpu-bind: none}",
    ),
    "apptainer": (
        *TWO_NODES,
        "launcher.container={kind: apptainer, image: /images/ftx.sif, mounts: ['/data:/data:ro']}",
    ),
    "pyxis": (
        *TWO_NODES,
        "launcher.container={kind: pyxis, image: team/ftx:1, mounts: ['/a:/a', '/b:/b'], python: python}",
    ),
}


@pytest.fixture
def dry_run(tmp_path):
    """What the words print, with placeholders for what differs from machine to machine."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def printed(*words):
        command = [sys.executable, "-m", "ftx.train", *PLAIN, f"run_root={tmp_path}/runs", *words]
        without_slurm = {"PATH": "/nowhere", "PYTHONPATH": str(CHECKOUT)}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=without_slurm)
        return without_paths(done.stdout, tmp_path)

    return printed


def without_paths(text, here):
    text = text.replace(sys.executable, "{python}").replace(str(here), "{here}").replace(str(CHECKOUT), "{checkout}")
    return re.sub(r"-[0-9a-f]{8}\b", "-{hash}", re.sub(r"/\.code/[0-9a-f]{12}", "/.code/{hash}", text))


@pytest.mark.parametrize("case", CASES)
def test_a_dry_run_prints_the_scripts_and_their_environment(case, dry_run, tmp_path):
    scripts, found, _ = dry_run(*CASES[case]).partition(ENVIRONMENT)
    assert scripts + found == (RECORDS / f"{case}.txt").read_text()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [".cache"]


def test_a_dry_run_prints_every_run_as_its_jobs_would_get_it(dry_run, tmp_path, monkeypatch):
    printed = dry_run("-m", "schedule.epochs=1,2", "launcher.time_min=90").partition(ENVIRONMENT)[2]
    monkeypatch.chdir(tmp_path)
    runs = [
        compose(*PLAIN, f"run_root={tmp_path}/runs", f"schedule.epochs={one}", "launcher.time_min=90") for one in (1, 2)
    ]
    shown = [part.partition("\n")[2].strip() for part in printed.split("# ---- ")[1:]]
    assert shown == [without_paths(run_to_yaml(run), tmp_path).strip() for run in runs]
