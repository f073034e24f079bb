# Every target makes what it needs by itself: Python 3.11+ with its venv module and a package index are enough.
#
#   make demo    watch real jobs run (under a minute)
#   make test    build the wheel, install it beside the sources, run every test against it
#   make lint    ruff, mypy --strict, import-linter
#   make bench   the README's ratios, measured here and now
#   make torture    kill, fail and stall it at every step, and check its promises (ARGS="--points claim"; all: some 15 minutes)
#                ARGS="--postgres": on PostgreSQL, with workers as on two machines; ARGS="--outages server" (or disk)
#   make contract   what every store must keep to, with all that is drawn by chance (two minutes)
#   make soak    200,000 runs with a retention of seconds: does the store stay small? (some minutes)
#   make powercut   cut the power at a thousand random moments (ARGS="--cuts 200 --seed 7"), some minutes

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed
PEERS := $(VENV)/peers/.installed
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install --constraint constraints.txt

# What `make test ARGS="-k revoke"` hands on to pytest.
ARGS ?=

.PHONY: demo test lint bench contract torture powercut soak clean

demo: $(RUNTIME)
	@$(BIN)/python examples/demo.py

test: $(DEV)
	$(BIN)/python -m pytest -n 4 --dist worksteal $(ARGS)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(DEV) $(PEERS)
	$(BIN)/python bench/run.py $(ARGS)

torture: $(DEV)
	$(BIN)/python tests/torture/run.py $(ARGS)
	$(BIN)/python tests/powercut/cut_power.py --cuts 250

powercut: $(DEV)
	$(BIN)/python tests/powercut/cut_power.py $(ARGS)

# What is drawn by chance, as often as it takes, on PostgreSQL as on SQLite.
contract: $(DEV)
	ALL_DRAWS=1 $(BIN)/python -m pytest -n 2 tests/contract $(ARGS)

soak: $(DEV)
	$(BIN)/python tests/soak/soak.py $(ARGS)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# The build backend is installed like everything else, by its pinned version, so that a build needs no environment
# of its own (which pip would fill with whatever version is the newest that day).
$(RUNTIME): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "hueyctl needs Python 3.11 or newer, and %s is %d.%d: try make PYTHON=python3.12" % (sys.executable, *sys.version_info[:2]))'
	@echo "Setting up $(VENV) (only this once)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation --editable .
	@touch $@

$(DEV): $(RUNTIME)
	@echo "Adding the tools for tests and checks to $(VENV)"
	@$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

# What hueyctl's start is measured against, out of its way.
$(PEERS): bench/peers.txt
	@$(PYTHON) -m venv $(VENV)/peers
	@$(VENV)/peers/bin/python -m pip --quiet --disable-pip-version-check install --requirement bench/peers.txt
	@touch $@
