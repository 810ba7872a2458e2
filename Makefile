# Everything starts from a clean clone with Python >= 3.11, git and make:
#   make run              serve a demo (ARGS=--exit ends after its summary)
#   make test | lint | bench | lock | clean
# The versions are those of requirements*.lock, checked by hash.

SHELL := /bin/sh
.SUFFIXES:
.DEFAULT_GOAL := run

ARGS ?=
WORKERS ?= 2
UV_VERSION := 0.13.8

VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/python -m uv
# The environment of the caller must not decide where packages go.
INSTALL := VIRTUAL_ENV="$(CURDIR)/$(VENV)" $(UV) pip install --quiet
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url

.PHONY: run test lint bench lock upgrade clean

run: $(VENV)/runtime.stamp
	$(BIN)/scrip demo $(ARGS)

test: $(VENV)/dev.stamp
	$(BIN)/pytest -n $(WORKERS) $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Some ten minutes, on a machine with nothing else to do; ARGS=--help tells the rest.
bench: $(VENV)/dev.stamp
	$(BIN)/python -m benchmarks $(ARGS)

# Write the locks anew from pyproject.toml, keeping the versions they hold; `upgrade` takes newer.
lock: $(VENV)/uv.stamp
	$(LOCK) pyproject.toml --output-file requirements.lock
	$(LOCK) pyproject.toml --group dev --constraint requirements.lock \
		--output-file requirements-dev.lock

upgrade: LOCK += --upgrade
upgrade: lock

clean:
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/uv.stamp: Makefile
	@set -e; \
	for python in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11 python; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "Making $(VENV) with $$python"; \
			"$$python" -m venv --clear $(VENV); \
			break; \
		fi; \
	done; \
	test -x $(BIN)/python || { echo 'make: Python 3.11 or newer is needed' >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

# The project itself is built by the locked hatchling: a build constraint, with its hash.
$(VENV)/runtime.stamp: requirements.lock requirements-dev.lock pyproject.toml $(VENV)/uv.stamp
	$(INSTALL) --require-hashes --requirement requirements.lock
	$(INSTALL) --no-deps --editable . --build-constraint requirements-dev.lock
	@touch $@

$(VENV)/dev.stamp: $(VENV)/runtime.stamp
	$(INSTALL) --require-hashes --requirement requirements-dev.lock
	@touch $@
