# Needs CPython >= 3.11 with venv, and make. Everything else comes into .venv.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
UV := $(shell command -v uv 2>/dev/null)
BIN := .venv/bin

ifdef UV
PIP := $(UV) pip install --python $(BIN)/python --quiet --compile-bytecode
else
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
endif

# Compiled once, also where PYTHONDONTWRITEBYTECODE is set: else each process that starts compiles for seconds.
PACKAGES := store routing workers admin_api standalone

.PHONY: demo up install test test-full test-ui check bench chaos screenshots lock clean
.DEFAULT_GOAL := demo

demo: .venv/.run
	@$(BIN)/orrery demo

up: .venv/.run
	@$(BIN)/orrery up

install: .venv/.dev

test: check
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not full"

test-full: check
	@$(BIN)/python -m pytest -n 2 --dist worksteal

# The web UI in a real browser alone. Needs a Chromium.
test-ui: .venv/.dev
	@$(BIN)/python -m pytest tests/ui

check: .venv/.dev
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

# Everything that can be killed, wiped, stopped or restarted, in full length; -s prints the counts.
chaos: .venv/.dev
	@$(BIN)/python -m pytest tests/promises tests/chaos -s

# About a quarter of an hour on an idle machine; `.venv/bin/python -m bench --only NAME` takes its share of it.
bench: .venv/.dev
	@$(BIN)/python -m bench

# A picture of every page of the web UI into docs/screenshots. Needs a Chromium.
screenshots: .venv/.dev
	@$(BIN)/python -m tests.ui.screenshots

# The locks: pins with hashes for every platform, without the address of any index. Needs uv.
LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-header --quiet --group build
lock:
	$(LOCK) --extra standalone -o requirements.txt
	$(LOCK) -c requirements.txt -o requirements-server.txt
	$(LOCK) --extra standalone --group dev -c requirements.txt -o requirements-dev.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .hypothesis *.egg-info

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Orrery needs CPython 3.11 or newer; none was found on PATH."; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/.run: requirements.txt pyproject.toml | .venv/bin/python
	@echo "Installing Orrery into .venv ..."
	@$(PIP) --require-hashes -r requirements.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q $(PACKAGES)
	@touch $@

.venv/.dev: requirements-dev.txt .venv/.run
	@echo "Installing the development tools into .venv ..."
	@$(PIP) --require-hashes -r requirements-dev.txt
	@touch $@
