# make demo   three domains from nothing, and an answer      make test   every check
# make setup  the environment alone                          make bench  every figure of docs/figures.md
# make soak   hundreds of kills, edits and builds: an hour
# make docs   the pages that are made from the schema, the commands and the figures
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
QUESTION := How much backstory should I invent before I start?
DEMO := study_techniques storytelling emergency_care

.PHONY: setup demo test check bench soak docs clean

setup: .venv/.ready
	@$(BIN)/meetara-build setup

# torch first: asked for with the others, an index may bring gigabytes of CUDA packages.
.venv/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make setup PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "PyTorch: installing"
	@$(PIP) torch
	@echo "Python packages: installing, a minute or two"
	@$(PIP) --editable '.[agents,postgres,report,serve,tune]'
	@touch $@

.venv/.test-ready: .venv/.ready tests/clients/package.json scripts/install_clients.py
	$(PIP) --editable '.[test]'
	$(BIN)/python scripts/install_clients.py
	@touch $@

# A strict domain's model may do harm and is held back, which ends the build with 1; if anything else
# went wrong, there is no model to ask.
demo: setup
	@$(BIN)/meetara-build build $(DEMO) || test $$? = 1
	@echo "> $(QUESTION)"
	@$(BIN)/meetara-build chat storytelling "$(QUESTION)"

test: setup .venv/.test-ready check
	$(BIN)/python -m pytest --numprocesses 2

check:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

bench: setup .venv/.test-ready
	$(BIN)/python -m bench

soak: setup .venv/.test-ready
	$(BIN)/python -m bench.incremental_soak
	$(BIN)/python -m bench.kills

docs: setup .venv/.test-ready
	$(BIN)/python scripts/reference.py
	$(BIN)/python -m bench.figures

clean:
	rm -rf artifacts .meetara .snakemake
