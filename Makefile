# Everything a person does with this checkout; `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORDS ?=
# Of make server: it listens on every address of this machine, and has no password. Not ?=, many shells export HOST.
HOST = 0.0.0.0
PORT = 5000
DIR = $(CURDIR)/mlflow-server
NAME =
# Adapters on random weights learn how to answer, hardly what: a high rate and little data show that soonest.
ADAPTERS := -m schedule.epochs=0,3 schedule.learning_rate=1e-2 data.limit=1500 evaluation.limit=200 launcher.parallel=2
TESTS := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help setup smoke smoke-lora smoke-qlora smoke-slurm test test-long test-slurm test-all lint ui server bench bench-gpu clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## install everything into .venv, once

smoke: $(STAMP) ## the epoch ablation on the standard library's documentation, with its report
	$(BIN)/python -m ftx.train experiment=stdlib_docs_epochs $(WORDS)

smoke-lora: $(STAMP) ## the tiny model with adapters, untrained and after three epochs, with its report
	$(BIN)/python -m ftx.train $(ADAPTERS) method=lora $(WORDS)

smoke-qlora: $(STAMP) ## the same with adapters on weights of 4 bits
	$(BIN)/python -m ftx.train $(ADAPTERS) method=qlora $(WORDS)

smoke-slurm: $(STAMP) ## a SLURM cluster of four pretended nodes, a sweep on it, its report, down again: for root
	$(BIN)/python tests/slurm run env PATH=$(CURDIR)/$(BIN):$$PATH sh tests/slurm/smoke.sh $(WORDS)

test: $(STAMP) ## the tests that need neither a GPU nor a network, but for the longest ones
	$(TESTS) -m "not long"

test-long: $(STAMP) ## the longest ones: ranks that hang, servers that are away, sweeps of several processes
	$(TESTS) -m long

test-slurm: $(STAMP) ## the tests on a SLURM cluster that they bring up: for root, with SLURM's Debian packages
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest tests/slurm $(WORDS)

test-all: lint test test-long test-slurm ## lint and every test

lint: $(STAMP) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

ui: $(STAMP) ## the MLflow UI on this machine
	@echo "MLflow UI: http://127.0.0.1:5000  (Ctrl-C ends it)"
	@MLFLOW_DISABLE_TELEMETRY=true $(BIN)/mlflow ui --backend-store-uri sqlite:///$(CURDIR)/mlflow.db --host 127.0.0.1 --port 5000

server: $(STAMP) ## an MLflow server for the jobs of a cluster: HOST, PORT, DIR, NAME=what else nodes call this machine
	@$(BIN)/python -m ftx.server --host $(HOST) --port $(PORT) --folder "$(DIR)" $(NAME:%=--name %)

bench: $(STAMP) ## speed and memory beside the peers, as ratios: training, preparation, the loss, scoring
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt trl==1.16.0
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.training_speed
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.preparation_speed
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.loss_memory
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.evaluation_speed --rounds 5

bench-gpu: $(STAMP) ## a GPU's speed, memory and results beside TRL and the references; says what cannot run here
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt trl==1.16.0
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.gpu

clean: ## remove what make setup made; runs and metrics stay
	rm -rf $(VENV)

# torch first and by its pinned version, so that nothing pulls in another build of it; deepspeed is built against it.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found: install Python 3.11 or newer, or say make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $$($(PYTHON) --version) is too old: Python 3.11 or newer is needed; say make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "make: this Python has no venv module (Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch setuptools wheel ninja
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@
