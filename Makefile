# The first target that needs .venv makes it, and makes it again when pyproject.toml changes.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
JOBS   ?= 2
ARGS   ?=

# One thread a process: small matrices gain nothing from more, and processes that share cores lose much.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

.PHONY: help setup demo test test-browser test-wheel docs lint fmt clean bench gpu

help:
	@echo "make setup   .venv with the package and all it needs (the other targets do this themselves)"
	@echo "make demo    breast-cancer table, drifting instruments: train, adapt without labels, compare"
	@echo "make test    the whole test suite; ARGS='-k graph' for a part of it, JOBS=4 for more processes"
	@echo "make test-browser"
	@echo "             the HTML report in a headless Chromium; CHROMIUM=/path/to/one if it is not found"
	@echo "make test-wheel"
	@echo "             the wheel in an environment of its own: minutes, and 6 GB for that time"
	@echo "make docs    the documentation site, in build/docs: a minute, tutorials run; a warning is an error"
	@echo "make bench   speed beside plain PyTorch and the goals: table, benchmarks/results.json; half an hour, run it alone"
	@echo "make gpu     on a machine with a GPU: its tests, speed, Figure 7 and CIFAR in nine minutes, to results/gpu"
	@echo "make lint    ruff, mypy and the contracts on imports"
	@echo "make fmt     format and fix what can be fixed"
	@echo "make clean   remove .venv and all caches"

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "pyro_cama needs Python 3.11 or newer, '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)."; \
	    echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || { echo "Setting up $(VENV): once, a few minutes, about 6 GB."; \
	  $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "$(PYTHON) -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }; }
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@

setup: $(STAMP)

demo: $(STAMP)
	$(BIN)/python experiments/breast_cancer_drift.py $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-browser: $(STAMP)
	$(BIN)/python -m pytest tests/browser $(ARGS)

test-wheel: $(STAMP)
	$(BIN)/python tests/wheel.py

docs: $(STAMP)
	$(BIN)/python -m sphinx -b html -q -W --keep-going docs build/docs

bench: $(STAMP)
	KINETO_LOG_LEVEL=99 $(BIN)/python benchmarks/run.py $(ARGS)

gpu: $(STAMP)
	$(BIN)/python benchmarks/gpu.py $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

fmt: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
