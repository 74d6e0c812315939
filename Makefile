# Needs make and Python 3.11 or later; everything else is installed into .venv, at locked versions.
# PYTHON=python3.13 chooses the interpreter, ARGS="-k lane -x" goes to the command of the target.

BIN := .venv/bin
COMPILE := uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	--custom-compile-command "make lock" pyproject.toml --extra demo --extra gateway --group build

WORKERS := 4
OLDEST := -m "not slow" tests/postgres $(addprefix tests/kafka/test_,crash.py group.py postgres_faults.py) \
	$(addprefix tests/e2e/test_,publish_run_answer.py cli_answers.py cli_projections.py) \
	--ignore=tests/postgres/test_embedded_postgres.py

# Without Kafka; consumer and producer are proven on it.
COVERING := tests/unit tests/postgres
CORE := ledger/domain/*,ledger/batch*.py,ledger/store/tables/*

CONTRACTS := tests/test_architecture.py::test_import_contracts_hold  # what lint-imports says itself

# Tests start Python hundreds of times: what it compiles is kept, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

# A virtual environment that doesn't work, or that an old Python made since, is looked at again.
$(shell $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || rm -f .venv/*.stamp)

.PHONY: help demo native test test-quick test-newest test-oldest coverage check docs reference release-check interface bench bench-cache bench-door bench-hot bench-peers bench-all \
	lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile

demo: .venv/demo.stamp  ## the whole story in a minute, without Docker or Java
	$(BIN)/stockledger demo $(ARGS)

native: .venv/dev.stamp  ## build the native codec and install it into .venv; needs cargo
	rm -rf build/native
	$(BIN)/maturin build --quiet --release -m native/Cargo.toml -o build/native
	$(BIN)/python -m pip install --quiet --no-deps --no-index --force-reinstall build/native/*.whl

test: .venv/dev.stamp  ## all tests, on the best Kafka and Postgres that this machine offers
	$(BIN)/pytest -n $(WORKERS) $(ARGS)

test-quick: .venv/dev.stamp  ## those that need no services
	$(BIN)/pytest -n 2 tests/unit tests/test_architecture.py $(ARGS)

coverage: .venv/dev.stamp  ## the unit and Postgres tests, and which branches they reach; slower
	$(BIN)/pytest -n $(WORKERS) --cov --cov-report= -m "not slow" $(COVERING) $(ARGS)
	$(BIN)/coverage report
	$(BIN)/coverage report --include="$(CORE)"

test-newest: .venv/dev.stamp  ## the unit tests on the newest Python that this machine has, or an image of it
	$(BIN)/python -m tools.newest $(ARGS)

test-oldest: .venv/dev.stamp  ## those that an older Kafka or Postgres could break, on the oldest; needs Java, Maven, postgresql-15
	STOCKLEDGER_TEST_RUNG=java STOCKLEDGER_TEST_POSTGRES=15 STOCKLEDGER_TEST_KAFKA=3.9.1 \
	$(BIN)/pytest -n $(WORKERS) $(OLDEST) $(ARGS)

check: .venv/dev.stamp  ## style, types, floors, links, and that the pages say all that there is
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -q tests/test_docs.py tests/test_architecture.py tests/unit/test_interface.py --deselect $(CONTRACTS)

docs: .venv/docs.stamp  ## the pages as a site that can be searched, in build/site; a broken link fails
	$(BIN)/python -m tools.site

release-check: .venv/dev.stamp  ## build wheel and sdist, and run the demo from the wheel in an empty environment
	$(BIN)/python -m tools.release

interface: .venv/dev.stamp  ## write tests/unit/interface.txt anew, after a change of what is public
	$(BIN)/python -m tests.support.interface

reference: .venv/dev.stamp  ## write anew what pages say about the program: verbs, settings, formats, floors
	$(BIN)/python -m tools.reference

bench: .venv/dev.stamp  ## commands per second beside the limit and the naive way; 20 minutes on 2 calm cores
	$(BIN)/python -m benchmarks throughput $(ARGS)

bench-cache: .venv/dev.stamp  ## reads from a stock cache beside other ways; 5 minutes on 2 calm cores
	$(BIN)/python -m benchmarks cache $(ARGS)

bench-door: .venv/dev.stamp  ## the HTTP door beside a constant answer, and slow clients; 4 minutes a round on 2 calm cores
	$(BIN)/python -m benchmarks gateway $(ARGS)

bench-hot: .venv/dev.stamp  ## who waits for whom, by workers, batch and distance; 15 minutes a round on 2 calm cores
	$(BIN)/python -m benchmarks hot $(ARGS)

bench-peers: .venv/dev.stamp  ## both codecs beside Kafka Streams and the usual ways; 2 minutes a round on 2 calm cores
	$(BIN)/python -m benchmarks peers $(ARGS)

bench-all: .venv/dev.stamp  ## latency, growth, shapes that hurt and the producer, too; about an hour
	$(BIN)/python -m benchmarks all $(ARGS)

lock:  ## resolve requirements/*.txt again after a change in pyproject.toml; needs uv
	$(COMPILE) -o requirements/demo.txt
	$(COMPILE) --group test --group check --group native -o requirements/dev.txt
	$(COMPILE) --group docs -c requirements/dev.txt -o requirements/docs.txt

clean:  ## remove .venv and everything generated
	rm -rf .venv .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/%.stamp: requirements/%.txt requirements/install pyproject.toml
	@sh requirements/install $*
	@touch $@
