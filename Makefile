# `make demo` and `make test` set up .venv and then do the whole job; nothing else is needed.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Empty is off: without bytecode on disk each of many processes would compile the packages anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo docs notebooks test fast lint format clean

# The constraint keeps torch on the build without CUDA packages where that is what the index offers.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all]'
	touch $@

demo: .venv/.installed
	$(BIN)/cliffscope demo --out runs/demo

# One process a core, each with one thread: threads that compete for cores are far slower than one. Files go to them in
# the order of tests/conftest.py, the longest first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test: .venv/.installed lint
	$(PYTEST)

# Material for MkDocs tells of plans for another MkDocs at every build: no concern of these pages.
docs: .venv/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Executes them all and writes their outputs back; to be run after a change of what they show.
notebooks: .venv/.installed
	$(BIN)/python -m notebooks.run

# The checks that take seconds.
fast: .venv/.installed
	$(PYTEST) -m 'not slow'

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv runs
