# The main commands are `make run` and `make test`. Both first install what they need.
SHELL := /bin/bash
PYTHON ?= python3
PORT ?= 3000
FRAMES ?= bulk
COVERAGE ?=
PIP := .venv/bin/python -m pip --disable-pip-version-check
# Only wheels with a digest in requirements*.txt, so that nothing runs code while it is built.
INSTALL := $(PIP) install -q --require-hashes --only-binary=:all: -r
# For npm the digests are in package-lock.json, and .npmrc refuses that a package runs code.
# Node would leave its compile cache in /tmp.
export NODE_DISABLE_COMPILE_CACHE := 1
NPM := .venv/bin/npm --loglevel=error

.DEFAULT_GOAL := help
.PHONY: help setup tools run test check faults fuzz bench hashes clean

help:  ## show this list
	@awk -F ':.*##' '/^[a-z]+:.*##/ { printf "  make %-8s%s\n", $$1, $$2 }' Makefile

setup: .venv/runtime .engines/ready  ## install Python packages and databases into the checkout, without root

tools: .venv/dev  ## install what tests, checks and the README's walk-through need as well

run: setup  ## start the server on port 3000 (PORT=… for another), after setup
	@exec .venv/bin/python server.py --port=$(PORT)

test: setup .venv/dev .browser/ready  ## run the tests with embedded databases of their own, after setup
	@TANDEM_FRAMES=$(FRAMES) exec .venv/bin/python -m pytest $(if $(COVERAGE),--cov) $(ARGS)

check: .venv/dev node_modules/ready  ## run ruff, mypy --strict, import-linter, the prose check, tsc --strict and oxlint
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache
	@.venv/bin/python scripts/check_prose.py
	@.venv/bin/node node_modules/typescript/bin/tsc -p .
	@.venv/bin/node node_modules/typescript/bin/tsc -p tests/web
	@bash -c 'PATH=.venv/bin:$$PATH node node_modules/oxlint/bin/oxlint web tests/web'

faults: setup .venv/dev  ## chat for ten minutes while databases and servers are killed, and report lost messages
	@exec .venv/bin/python -m tests.faults.storm $(ARGS)

fuzz: setup .venv/dev  ## send millions of damaged frames and requests while clients chat, and report failures
	@.venv/bin/python -m tests.fuzz.frames
	@exec .venv/bin/python -m tests.fuzz.http

bench: setup .venv/bench  ## compare the server's speed with other servers, about twenty minutes; ARGS=--quick is short
	@exec .venv/bin/python -m bench $(ARGS)

hashes: .venv/node  ## write the digests of all pinned versions into requirements*.txt and package-lock.json
	@$(INSTALL) requirements-hashes.txt
	@.venv/bin/python scripts/write_hashes.py
	@$(NPM) install --package-lock-only

clean:  ## remove what setup installed, but not data/
	@rm -rf .venv .engines .browser node_modules .coverage .coverage.*

# Each marker file is written last, so an interrupted set-up is repeated.
.venv/made:
	@echo "setup: creating the virtual environment in .venv"
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

.venv/node: requirements-node.txt .venv/made
	@echo "setup: installing Node with npm (requirements-node.txt, from PyPI)"
	@$(INSTALL) requirements-node.txt || \
	  { echo "setup: failed: pip could not install requirements-node.txt; check the network and try again" >&2; exit 1; }
	@touch $@

node_modules/ready: package.json package-lock.json .npmrc .venv/node
	@echo "setup: installing the JavaScript checks (package-lock.json, from npm)"
	@$(NPM) ci --ignore-scripts > /dev/null || \
	  { echo "setup: failed: npm could not install package-lock.json; check the network and try again" >&2; exit 1; }
	@touch $@

.engines/ready: scripts/setup_databases.py scripts/packages.py requirements-mongod.txt | .venv/made
	@.venv/bin/python scripts/setup_databases.py

# If the browser cannot be installed, the marker is not written: its tests are skipped, and the next run tries again.
.browser/ready: scripts/setup_browser.py scripts/packages.py | .venv/made
	@.venv/bin/python scripts/setup_browser.py
