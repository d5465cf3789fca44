# Everything starts from a bare machine with Python 3.11 or newer: each target makes the environment
# that it needs, and does so again when setup.cfg has changed.
#
#   make demo           train, be killed, go on, load: the package at work
#   make test           lint, types, import contracts and all tests
#   make lint           the first three of these
#   make test-oldest    all tests on the oldest supported Keras and TensorFlow (in .venv-oldest)
#   make torture        crashes, kills, full disks and damage, the long form (about 20 minutes)
#   make upstream       Keras' own tests of saving, and every object of Keras, all of them (10 minutes)
#   make fuzz           damaged and hostile files, a million mutants of them; KCT_FUZZ=20000 for fewer
#   make bench          speed and memory beside the peers, into benchmarks/RESULTS.md (an hour);
#                       make bench BENCH=--quick takes a few minutes
#   make docs           the documentation as a site, into build/docs
#   make check-install  build the wheel, install it into an empty environment, run the README there
#   make release-check  the same, after a look at what would be published; leaves it in dist/
#   make clean          remove environments, builds and caches

# The first of these that is new enough and can make environments; `make PYTHON=...` overrides.
CANDIDATES := python3.11 python3 python3.12 python3.13 python
PROBE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	"$$p" -c "$(PROBE)" >/dev/null 2>&1 && { echo "$$p"; break; }; done)

VENV := .venv
OLDEST := .venv-oldest
BIN := $(VENV)/bin
PIP := -m pip install --quiet --progress-bar off --disable-pip-version-check --use-pep517

# Tests of one file stay in one process, which shares its imports and fixtures. In the order of the
# folders: by number of tests, the longest ones would come last, while other processes wait.
JOBS ?= 2
PYTEST := -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := test
.PHONY: demo test lint test-oldest torture upstream fuzz bench docs check-install release-check clean

demo: $(VENV)/.installed
	@$(BIN)/python examples/demo.py

test: lint
	@$(BIN)/python $(PYTEST)

lint: $(VENV)/.installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

test-oldest: $(OLDEST)/.installed
	@$(OLDEST)/bin/python $(PYTEST)

torture: $(VENV)/.installed
	@KCT_TORTURE=1 $(BIN)/python -m pytest -q tests/torture tests/training/test_phases.py tests/training/test_changes.py

upstream: $(VENV)/.installed
	@KCT_UPSTREAM=1 $(BIN)/python -m pytest -q tests/upstream

fuzz: $(VENV)/.installed
	@KCT_FUZZ=$${KCT_FUZZ:-1000000} KCT_FUZZ_SEED=$${KCT_FUZZ_SEED:-$$(date +%s)} \
		$(BIN)/python -m pytest -q tests/fuzz

check-install: $(VENV)/.installed
	@.ci/check_install $(BIN)/python

docs: $(VENV)/.installed
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --config-file .mkdocs.yml

release-check: $(VENV)/.installed
	@.ci/release_check $(BIN)/python

bench: $(VENV)/.bench
	@$(BIN)/python -m benchmarks $(BENCH)

# A stamp says that an installation went through to its end.
$(VENV)/.installed: setup.cfg setup.py keras_ckpt_tools/_version.py | $(BIN)/python
	@echo "Installing into $(VENV). TensorFlow is large: the first time takes some minutes."
	@$(BIN)/python $(PIP) --editable '.[test,dev,docs]'
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	@$(BIN)/python $(PIP) --editable '.[bench]'
	@touch $@

$(OLDEST)/.installed: setup.cfg setup.py keras_ckpt_tools/_version.py | $(OLDEST)/bin/python
	@echo "Installing into $(OLDEST). TensorFlow is large: the first time takes some minutes."
	@$(OLDEST)/bin/python $(PIP) --editable '.[test]' keras==3.10.0 tensorflow==2.18.0
	@touch $@

$(BIN)/python $(OLDEST)/bin/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "No Python 3.11 or newer that can make environments was found." \
			"Install one, or say: make PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@"$(PYTHON)" -m venv --clear $(@D)/..

clean:
	@rm -rf $(VENV) $(OLDEST) build dist htmlcov .coverage* *.egg-info
	@rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
