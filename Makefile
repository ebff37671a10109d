# What each target is for: make help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CDK := node_modules/.bin/cdk
SETUP := $(VENV)/.installed $(CDK)

# Lines before a recipe's own: no bytecode of the handler beside its sources, and Node's
# end-of-life notice, which says nothing about this project, stays out of what people read.
export PYTHONDONTWRITEBYTECODE := 1

export JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION := 20

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types pytest slow soak mutate bench disks format lock clean

help: ## show this
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(SETUP) ## install everything into .venv and node_modules

demo: $(SETUP) ## deploy a VM image and a recipe on it, on an AWS on this machine
	@$(BIN)/python -m local_aws.client.demo

test: $(SETUP) lint types pytest ## lint, types and tests

check: lint types ## lint and types alone

lint: $(SETUP) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(SETUP) ## mypy, strict
	$(BIN)/mypy

pytest: $(SETUP) ## the tests (some: make pytest ARGS='tests/handler -k token')
	$(BIN)/pytest --numprocesses auto --dist loadfile $(ARGS)

slow: $(SETUP) ## the tests that make test leaves out (about half an hour)
	$(BIN)/pytest --numprocesses auto --dist loadfile -m slow $(ARGS)

soak: $(SETUP) ## 10,000 random lives of an image (one batch again: make soak ARGS='--seed N')
	PYTHONPATH=.:lambda/vm_import $(BIN)/python -m tests.lifecycle.soak $(ARGS)

mutate: $(SETUP) ## deliberate faults in the handler; the tests must notice each
	$(BIN)/python -m tests.lifecycle.mutations

bench: $(SETUP) ## looks, AWS calls and delays of the wait, beside other ways
	PYTHONPATH=lambda/vm_import $(BIN)/python -m benchmarks.waiting

disks: $(SETUP) ## the disks of the tests, anew (needs qemu-img)
	$(BIN)/python -m tests.disks.make_disks

format: $(SETUP) ## format, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(SETUP) ## renew requirements.lock and package-lock.json
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --generate-hashes --no-header --quiet --upgrade --output-file requirements.lock
	npm install --package-lock-only

clean: ## remove all that make made
	rm -rf $(VENV) node_modules cdk.out dist .local_aws .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.13 ...")'
	@echo "Installing Python packages into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(CDK): package-lock.json
	@echo "Installing the CDK CLI into node_modules ..."
	@npm ci --silent
	@touch $@
