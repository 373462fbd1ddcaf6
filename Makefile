# make quickstart   set up .venv and train a small model under a budget of seconds
# make check        everything a change must pass: lint, types, docs, tests
# make show         run the measurements listed in SHOW
#
# PYTHON=/path/to/python3.12   another interpreter
# CONSTRAINTS=                 newest versions instead of the tested ones; the way to get torch for an accelerator

PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
SHOW ?= bench/startup.py bench/wrong_input.py bench/replay.py bench/books.py bench/kill.py bench/budgets_kept.py bench/overhead.py bench/quickstart.py

VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.ready-to-run
CHECK := $(VENV)/.ready-to-check
SETUP := PYTHON="$(PYTHON)" CONSTRAINTS="$(CONSTRAINTS)" VENV="$(VENV)" scripts/setup.sh
SETUP_FILES := pyproject.toml constraints.txt scripts/setup.sh
# Two test processes on two cores: one thread each, or they wait for one another.
QUIET := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

.PHONY: quickstart check lint types docs test test-slow format show setup clean

quickstart: $(RUN)
	$(BIN)/outlay run quickstart

# One after the other, tests last: their closing line ends the output.
check: $(CHECK)
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory types
	$(MAKE) --no-print-directory docs
	$(MAKE) --no-print-directory test

lint: $(CHECK)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(CHECK)
	$(BIN)/mypy

docs: $(CHECK)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test: $(CHECK)
	$(QUIET) $(BIN)/python -m pytest -n 2

test-slow: $(CHECK)
	$(QUIET) $(BIN)/python -m pytest -n 2 -m slow

format: $(CHECK)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

show: $(RUN)
	@set -e; for script in $(SHOW); do echo "== $$script"; $(BIN)/python $$script; done

setup: $(CHECK)

$(RUN): $(SETUP_FILES)
	$(SETUP) all
	@touch $@

$(CHECK): $(SETUP_FILES)
	$(SETUP) all,dev,docs
	@touch $(RUN) $@

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .hypothesis
