# Quayside. `make help` lists everything one can do here.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
UV := .tools/uv/bin/uv
BIN := .venv/bin
# One more than the processors of a small machine: many tests wait for processes they have started.
WORKERS ?= 3

# An environment that forbids bytecode makes every start compile all it imports: twice the time.
unexport PYTHONDONTWRITEBYTECODE
# uv's own certificate store does not know the authority of a company's proxy; the system's does.
export UV_SYSTEM_CERTS := 1
export UV_NO_PROGRESS := 1

.PHONY: help env spark demo test test-fast up stop lint format docs lock bench-kycc bench-dataloader bench-credit bench-refinement bench-startup bench-launcher bench-drain bench-learning faults-kycc faults-dataloader crowd-dataloader faults-billing histories simulate-year bench-billing clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

env: .venv/.ready  ## make the environment in .venv (brings uv into .tools)

spark: .venv/.spark  ## add Spark to the environment (480 MB; it runs on Java 17 or newer), for `make test` and `make lint`

demo: env data/synthetic_profiles.json  ## generate 10,000 parties, run ingest, features and scores on Dagster, show the result
	$(BIN)/quayside demo

test: env spark data/synthetic_profiles.json  ## all tests, in parallel
	$(BIN)/python -m pytest -n $(WORKERS)

test-fast: env data/synthetic_profiles.json  ## the tests that are not slow
	$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

up: env data/synthetic_profiles.json  ## webserver and daemon with all locations, http://localhost:3000
	$(BIN)/quayside up

stop:  ## stop the embedded PostgreSQL and Valkey
	$(BIN)/quayside db stop

lint: env spark  ## ruff, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: env  ## write the formatting and what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: env  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench-kycc: env  ## time and memory of every stage, and scoring beside other libraries, into benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks.kycc

bench-learning: env  ## time and memory from labels to a refined card
	$(BIN)/python -m benchmarks.learning

bench-launcher: env  ## runs per minute of Dagster's launcher and of ours, 35 minutes
	$(BIN)/python -W ignore -m benchmarks.launcher

bench-drain: env  ## thousands of small tables due at once, drained by the daemon: tables per minute, CPU per table
	$(BIN)/python -W ignore -m benchmarks.dataloader_drain

bench-dataloader: env .tools/peers/.ready  ## one table of 6 M rows into the lake beside what others use: full, 1 % merge, memory at 60 M
	$(BIN)/python -m benchmarks.dataloader

bench-credit: env  ## our bins, model and points beside optbinning + logistic regression on public credit data
	$(BIN)/python -m benchmarks.credit

bench-refinement: env  ## refined cards over 20 seeds of generated outcomes, and what training costs
	$(BIN)/python -m benchmarks.refinement

bench-startup: env  ## what starting the command and loading a location costs
	$(BIN)/python -m benchmarks.startup

faults-kycc: env  ## kill KYCC at random moments (SEED=, KILLS=), then compare with an undisturbed run
	$(BIN)/python -m tests.faults.kycc --kills $(or $(KILLS),60) --seed $(or $(SEED),1)

faults-billing: env  ## kill billing at random moments (SEED=, KILLS=), then compare its books with undisturbed ones
	$(BIN)/python -W ignore -m tests.faults.billing --kills $(or $(KILLS),200) --seed $(or $(SEED),1)

histories: env  ## random histories of graphs, in the ledger and in a plain model (SEED=, HISTORIES=)
	$(BIN)/python -m tests.robosystems.histories --histories $(or $(HISTORIES),2000) --seed $(or $(SEED),1)

simulate-year: env  ## twelve months of billing for a thousand graphs (SEED=, GRAPHS=), reconciled
	$(BIN)/python -m tests.robosystems.year --graphs $(or $(GRAPHS),1000) --seed $(or $(SEED),1)

bench-billing: env  ## storage bills, allowances, events and consumes at 1k, 10k and 100k graphs, beside pgledger-style functions
	$(BIN)/python -m benchmarks.billing

faults-dataloader: env  ## kill DataLoader at random moments while its source changes (SEED=, KILLS=)
	$(BIN)/python -W ignore -m tests.faults.dataloader --kills $(or $(KILLS),200) --seed $(or $(SEED),1)

crowd-dataloader: env  ## workers that load a table each and commit at the same moment (WORKERS=64)
	WORKERS=$(or $(WORKERS),64) $(BIN)/pytest tests/dataloader/dagster/test_bounded.py -k at_once

lock: $(UV)  ## resolve pyproject.toml anew into requirements.lock and requirements-spark.lock
	$(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra dev --extra bench --extra sources \
		--custom-compile-command "make lock" pyproject.toml -o requirements.lock
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["spark"])' \
		| $(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 \
		--custom-compile-command "make lock" - -o requirements-spark.lock
	$(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 \
		--custom-compile-command "make lock" benchmarks/peers.in -o requirements-peers.lock

# Loaders that `make bench-dataloader` measures ours against, in an environment of their own: their needs contradict ours.
.tools/peers/.ready: requirements-peers.lock | $(UV)
	$(UV) venv --quiet --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .tools/peers
	$(UV) pip sync --quiet --require-hashes --compile-bytecode --python .tools/peers/bin/python requirements-peers.lock
	touch $@

clean:  ## remove environment, tools and state (stops the embedded servers first)
	-[ ! -x $(BIN)/quayside ] || $(BIN)/quayside db stop
	rm -rf .venv .tools .quayside data site

data/synthetic_profiles.json: .venv/.ready
	$(BIN)/quayside kycc generate --out $@

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Quayside needs Python 3.11 or newer; '$(PYTHON)' is older. Name another: make PYTHON=python3.13 …"; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null 2>&1 \
		|| { echo "'$(PYTHON)' has no pip. Install it (Debian: apt-get install python3-pip) and run make again."; exit 1; }
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .tools/uv 'uv>=0.9,<1'

.venv/.ready: requirements.lock pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .venv
	$(UV) pip sync --quiet --require-hashes --compile-bytecode requirements.lock
	$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# PySpark comes as source and is built with what the environment has. A new environment has lost it: hence the order.
.venv/.spark: requirements-spark.lock .venv/.ready
	$(UV) pip install --quiet --no-deps --no-build-isolation --require-hashes --compile-bytecode -r requirements-spark.lock
	touch $@
