# Everything here makes its own environment in .venv first; only Python 3.11 or newer and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made-from-lock

.PHONY: demo test servers lint types bench chaos lock clean

demo: $(STAMP)
	$(BIN)/jarai-receiver demo

# The servers are fetched, the first time, while the core is tested.
test: $(STAMP)
	@$(PYTHON) tests/servers/install.py & servers=$$!; \
	$(BIN)/python -m pytest tests/core -q --cov=service/core --cov-branch --cov-report=term-missing:skip-covered; \
	verdict=$$?; wait $$servers; exit $$verdict
	$(BIN)/python -m pytest tests --ignore=tests/core -q -n 3 --dist worksteal

# Azurite and nginx, into .servers; what can't be had is named, and the tests that need it are skipped.
servers:
	@$(PYTHON) tests/servers/install.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python -m tests.bench

# Breaks everything at random and counts: make chaos MINUTES=20 SEED=1
MINUTES ?= 5
chaos: $(STAMP)
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

# As long as you like: FUZZ_EXAMPLES is the number of examples of each test, other ones every time.
FUZZ_EXAMPLES ?= 3000
fuzz: $(STAMP)
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(BIN)/python -m pytest tests/fuzz -v -s --timeout 0

# What a deployment installs, against the advisories of the Python Package Index. Needs the network.
# --strict: a package of which nothing can be learnt fails the audit instead of being left out.
audit: $(STAMP)
	$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r requirements.lock

# Resolve the newest versions within the ranges of pyproject.toml.
lock: $(STAMP)
	$(BIN)/pip-compile -q --no-strip-extras --generate-hashes --no-emit-index-url --no-emit-trusted-host \
	  --no-emit-find-links --allow-unsafe --no-header -o requirements.lock pyproject.toml
	$(BIN)/pip-compile -q --no-strip-extras --generate-hashes --no-emit-index-url --no-emit-trusted-host \
	  --no-emit-find-links --allow-unsafe --no-header --extra dev -o requirements-dev.lock pyproject.toml

$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; say: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf $(VENV) .servers build dist *.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
