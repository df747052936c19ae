#!/usr/bin/env bash
# Installs this checkout into the Python that is there, around the PyTorch that is there: an image's own is built for its
# CUDA, and another one from PyPI would bring gigabytes of another CUDA along. The Dockerfile and the Apptainer definition
# run this, and so may you, in any environment that comes with a PyTorch; `make setup` makes one that brings its own.
#
# constraints.txt is not used: it pins what is tested together on another Python and another PyTorch. The ranges of
# pyproject.toml hold, and the image's own constraints (PIP_CONSTRAINT).
#
#   PYTHON=python3 EXTRAS=gpu,agent,openai,trackers containers/install.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
extras=${EXTRAS-gpu,agent,openai,trackers}

kept=$(mktemp)
trap 'rm -f "$kept"' EXIT
"$python" containers/kept.py >"$kept"
mapfile -t packages <"$kept"
echo "install.sh: kept as they are: ${packages[*]}"

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
"$python" -m pip install --quiet --constraint "$kept" 'setuptools>=77' wheel ninja
# deepspeed is built against the PyTorch that is there, so without an environment of its own.
"$python" -m pip install --quiet --constraint "$kept" --no-build-isolation --editable ".${extras:+[$extras]}"

if ! "$python" containers/kept.py | diff "$kept" -; then
  echo "install.sh: packages of the image have changed (< before, > now)" >&2
  exit 1
fi
"$python" -m ftx.train --cfg job >/dev/null
echo "install.sh: ftx is installed; python -m ftx.train --help"
