# Two commands set everything up: `make demo` and `make test`. Both need Python >= 3.11 and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
DATA := $(wildcard ../shared/data)
export LEVELFIELD_DATA ?= $(abspath $(DATA))
AXE := $(VENV)/axe/node_modules/axe-core/axe.min.js
export LEVELFIELD_AXE ?= $(abspath $(AXE))

.PHONY: axe setup demo test test-all lint bench clean

PIP := $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "levelfield needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	touch $@

setup: $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/python -m suite.demo

# The accessibility test wants axe-core; without npm it skips and says so.
axe: $(VENV)/.dev
	@test -f $(AXE) || npm install --no-audit --no-fund --ignore-scripts --silent --prefix $(VENV)/axe axe-core@4.10.3 \
	  || echo "no axe-core: the accessibility test skips"

test: $(VENV)/.dev axe
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow" --benchmark-disable tests

test-all: $(VENV)/.dev axe
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal --benchmark-disable tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev
	$(ONE_THREAD) $(BIN)/python -m pytest benchmarks --benchmark-only

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
