# make            what can be asked for
# Everything lives in .venv, which is made again only when pyproject.toml or constraints.txt change.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
STAMP := .venv/.installed
NATIVE := src/haversack/tools/codec/_native.so
JOBS ?= 2

# 3.11 first: it is what the constraints were made with.
FIND_PYTHON := for name in python3.11 python3.12 python3.13 python3; do \
	if command -v $$name > /dev/null && $$name -c 'import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2> /dev/null; \
	then echo $$name; break; fi; done

.PHONY: help
help: ## this list
	@grep -E '^[a-z0-9-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then echo "haversack needs Python 3.11, 3.12 or 3.13; none was found on the PATH" >&2; exit 6; fi; \
	echo "making .venv with $$($$python --version) (two to seven minutes, 2 GB)"; \
	$$python -m venv --clear .venv
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[pack,lm,dev,demo]'
	@touch $@

# The coder's loops in C; without a C compiler the coder runs in NumPy.
$(NATIVE): native/rans.c native/build.py $(STAMP)
	@$(BIN)/python native/build.py

.PHONY: native
native: $(NATIVE) ## build the coder's loops in C again

.PHONY: demo
demo: $(STAMP) ## train a small digit classifier, pack it under budgets, ship it to a device, and back from bad releases
	$(BIN)/python examples/digits.py
	$(BIN)/python examples/ship_digits.py

.PHONY: test
test: lint $(NATIVE) ## the whole test suite
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --durations=40 --durations-min=4

.PHONY: fuzz
fuzz: $(STAMP) $(NATIVE) ## fuzz every reader of strangers' bytes for SECONDS=600 each; what was reached is kept in build/fuzz
	HAVERSACK_FUZZ_SECONDS=$(or $(SECONDS),600) HAVERSACK_FUZZ_CORPUS=build/fuzz \
	$(BIN)/python -m pytest -o timeout=0 -n $(JOBS) tests/fuzz -k do_more_than_be_refused

.PHONY: lint
lint: $(STAMP) ## style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

.PHONY: bench
bench: $(STAMP) $(NATIVE) ## measure what docs/benchmarks.md states
	$(BIN)/python bench/run.py

.PHONY: docs
docs: $(STAMP) ## run every snippet of README and docs
	$(BIN)/python -m pytest tests/house/test_snippets.py

.PHONY: system
system: ## install Debian's packages for the tests of reports and of devices over ssh and adb (root)
	@packages=""; command -v chromium > /dev/null || packages="chromium fonts-dejavu-core"; \
	[ -x "$$(PATH="$$PATH:/usr/sbin" command -v sshd)" ] || packages="$$packages openssh-server openssh-client"; \
	command -v adb > /dev/null || packages="$$packages adb"; \
	[ -n "$$($(FIND_PYTHON))" ] || packages="$$packages python3-venv"; \
	if [ -z "$$packages" ]; then echo "nothing to install"; exit; fi; \
	export DEBIAN_FRONTEND=noninteractive; apt-get update -qq; \
	apt-get install -y -qq --no-install-recommends $$packages > /dev/null; echo "installed: $$packages"

.PHONY: system-arm64
system-arm64: $(STAMP) ## a folder for ARM64 under qemu-user, for verify --device qemu:CPU (root where qemu is missing)
	@bash system/arm64.sh $(BIN)/python

.PHONY: clean
clean: ## remove what was made here, .venv included
	rm -rf .venv out build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
