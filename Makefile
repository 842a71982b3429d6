# Each target sets up all it needs: Python >= 3.11 with venv, make and a package index are enough.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := $(BIN)/pip-compile --quiet --strip-extras --generate-hashes --allow-unsafe --no-header --no-emit-options \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links --extra embedded --extra dashboard

.PHONY: help setup demo chaos test check fast lint types format bench bench-elastic wheel lock clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(STAMP) ## make the virtual environment in .venv

$(STAMP): requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "kstate needs Python 3.11 or newer with venv; set PYTHON=/path/to/python3"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP) ## split, kill, recover and merge under load, and prove that nothing is lost or doubled
	@$(BIN)/python -m benchmarks.demo

chaos: $(STAMP) ## 100 faults under load on real Kafka, every record compared (CHAOS_FAULTS, CHAOS_RECORDS, CHAOS_MINUTES)
	@$(BIN)/python -m tests.chaos --json benchmarks/results/chaos.json

test: $(STAMP) ## all tests: fast, simulation, integration on real Kafka
	@.ci/test

check: lint types fast ## lint, types and fast tests (< 90 s)

lint: $(STAMP) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP) ## mypy --strict
	@$(BIN)/mypy

fast: $(STAMP) ## the tests that need neither a broker nor minutes
	@$(BIN)/pytest -q -n 2 -m "not integration and not simulation and not slow and not chaos"

format: $(STAMP) ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMP) ## the running-average benchmark on a real broker
	@$(BIN)/python -m benchmarks.running_average

bench-elastic: $(STAMP) ## moves, failures and recovery under load: what they cost (about an hour)
	@$(BIN)/python -m benchmarks.elastic

wheel: $(STAMP) ## build the wheel into dist/
	@$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

lock: $(STAMP) ## refresh the hash-pinned requirement files (LOCKFLAGS=--upgrade for newer versions)
	@$(LOCK) $(LOCKFLAGS) --output-file requirements/runtime.txt pyproject.toml
	@$(LOCK) $(LOCKFLAGS) --constraint requirements/runtime.txt --output-file requirements/dev.txt pyproject.toml requirements/dev.in

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
