# Two commands from a fresh clone: `make quickstart` and `make test`. Each builds the environment by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
export PIP_NO_INPUT = 1

# `make gpu` measures what is still to be measured on a GPU, by a python whose torch sees it: see benchmarks/README.md.
GPU_PYTHON ?= python
MINUTES ?= 12

.PHONY: quickstart test test-thorough test-slow lint types contracts format gpu clean

# torch first and alone: asked for as a dependency of something else, pip may pick a build with gigabytes of CUDA.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint constraints.txt torch
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	touch $@

quickstart: $(VENV)/installed
	$(BIN)/moebius run quickstart --out runs/quickstart

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed
	$(BIN)/python hatch_build.py
	$(BIN)/pyright

contracts: $(VENV)/installed
	$(BIN)/lint-imports

test: lint types contracts
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow and not thorough"

test-thorough: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "thorough and not slow"

test-slow: $(VENV)/installed
	$(BIN)/pytest -m slow

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

gpu:
	PYTHONPATH=src $(GPU_PYTHON) benchmarks/gpu.py --minutes $(MINUTES)

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache
