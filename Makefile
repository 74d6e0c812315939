# Needs make and Python 3.11 or later; everything else is installed into .venv, at locked versions.
# PYTHON=python3.13 chooses the interpreter, ARGS="-k lane -x" goes to the command of the target.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
COMPILE := uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	--custom-compile-command "make lock" pyproject.toml --extra demo --group build

# A virtual environment whose interpreter or pip is gone is made again.
$(shell $(BIN)/python -c 'import pip' 2>/dev/null || rm -f .venv/*.stamp)

.PHONY: help demo test check bench bench-all lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

demo: .venv/demo.stamp  ## the whole story in a minute, without Docker or Java
	$(BIN)/stockledger demo $(ARGS)

test: .venv/dev.stamp  ## all tests, on the best Kafka and Postgres that this machine offers
	$(BIN)/pytest $(ARGS)

check: .venv/dev.stamp  ## style, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: .venv/dev.stamp  ## commands per second beside the limit and the naive way; 20 minutes on 2 calm cores
	$(BIN)/python -m benchmarks throughput $(ARGS)

bench-all: .venv/dev.stamp  ## latency, growth, shapes that hurt and the producer, too; about an hour
	$(BIN)/python -m benchmarks all $(ARGS)

lock:  ## resolve requirements/*.txt again after a change in pyproject.toml; needs uv
	$(COMPILE) -o requirements/demo.txt
	$(COMPILE) --group test --group check -o requirements/dev.txt

clean:  ## remove .venv and everything generated
	rm -rf .venv .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/%.stamp: requirements/%.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or later found; set PYTHON=/path/to/python" >&2; exit 1; }
	@$(BIN)/python -c 'import pip' 2>/dev/null || { rm -rf .venv && $(PYTHON) -m venv .venv; } || \
		{ echo "error: $(PYTHON) can't make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PIP) install --require-hashes -r $<
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
