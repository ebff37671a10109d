# `make help` describes the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CDK := node_modules/.bin/cdk
SETUP := $(VENV)/.installed $(CDK)
# In an environment of its own, because it pins packages that conflict with ours.
CHECKOV := .checkov/.installed

# Python must not write bytecode next to the handler's sources, because the asset would contain it.
# Node's end-of-life notice is not about this project.
export PYTHONDONTWRITEBYTECODE := 1

export JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION := 20

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types pytest slow soak mutate integ ministack bench nag disks format lock clean

help: ## show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(SETUP) ## install everything into .venv and node_modules

demo: $(SETUP) ## deploy a VM image and its recipe to a simulated AWS
	@$(BIN)/python -m local_aws.client.demo

test: $(SETUP) lint types pytest ## run lint, types and the tests of make pytest

check: lint types ## run only lint and types

lint: $(SETUP) ## check rules and format with ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(SETUP) ## check types with mypy --strict
	$(BIN)/mypy

pytest: $(SETUP) ## run the tests (some: make pytest ARGS='tests/handler -k token')
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(ARGS)

slow: $(SETUP) $(CHECKOV) ## run the slow tests, which make test does not run (about half an hour)
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -m slow $(ARGS)

soak: $(SETUP) ## run 10,000 random lifecycles of an image (repeat a batch: make soak ARGS='--seed N')
	PYTHONPATH=.:lambda/vm_import $(BIN)/python -m tests.lifecycle.soak $(ARGS)

mutate: $(SETUP) ## insert faults into handler, constructs and simulated AWS; the tests must detect each
	$(BIN)/python -m tests.mutations $(ARGS)

integ: $(SETUP) ## compare a real AWS account with the simulated AWS; asks first (docs/integ.md)
	@PYTHONPATH=.:lambda/vm_import $(BIN)/python -m integ $(ARGS)

ministack: $(SETUP) ## try another version of MiniStack: make ministack VERSION=1.2.3
	@test -n '$(VERSION)' || { echo 'Name a version: make ministack VERSION=1.2.3'; exit 1; }
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; trap 'exit 1' INT TERM; \
	python="$$folder/bin/python"; install="$$python -m pip --quiet --disable-pip-version-check install"; \
	failed() { echo "MiniStack $(VERSION) $$1 (CONTRIBUTING.md, 'A new version of MiniStack')."; exit 1; }; \
	echo "Installing MiniStack $(VERSION) into $$folder ..."; \
	$(BIN)/python -m venv "$$folder"; \
	$$install --require-hashes --requirement requirements.lock; \
	$$install --no-deps --no-build-isolation --editable .; \
	$$install 'ministack==$(VERSION)'; \
	$$python -m pytest -q tests/local_aws/test_seams.py || failed 'lacks what the tests above name'; \
	$$python -m pytest -q --numprocesses auto --dist loadfile tests/local_aws tests/handler $(ARGS) \
	|| failed 'behaves differently in the tests above'; \
	echo 'MiniStack $(VERSION) passes all tests.'

bench: $(SETUP) ## measure polls, AWS calls, price and delay of the wait for an import (about 5 minutes)
	PYTHONPATH=.:lambda/vm_import $(BIN)/python -m benchmarks.waiting

nag: $(SETUP) $(CHECKOV) ## count the findings of cdk-nag and checkov, compared with other solutions
	@PYTHONPATH=. $(BIN)/python -m nag

disks: $(SETUP) ## create the disks of the tests again (needs qemu-img)
	$(BIN)/python -m tests.disks.make_disks

format: $(SETUP) ## format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(SETUP) ## update the lock files
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --generate-hashes --no-header --quiet --upgrade --output-file requirements.lock
	$(BIN)/uv pip compile nag/requirements.in --universal --python-version 3.11 --generate-hashes --no-header --quiet --upgrade --output-file nag/requirements.lock
	npm install --package-lock-only

clean: ## remove everything that make created
	rm -rf $(VENV) .checkov node_modules cdk.out dist .local_aws .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.13 ...")'
	@echo "Installing Python packages into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(CHECKOV): nag/requirements.lock
	@echo "Installing checkov into .checkov ..."
	@$(PYTHON) -m venv .checkov
	@.checkov/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement nag/requirements.lock
	@touch $@

$(CDK): package-lock.json
	@echo "Installing the CDK CLI and pyright into node_modules ..."
	@npm ci --silent
	@touch $@
