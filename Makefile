# `make run` and `make test` are all that is needed; both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install run test lint clean

help:
	@echo "make run      install, provision and run the main job: a chaos run with a verdict and a report"
	@echo "make test     install and run the test suite"
	@echo "make lint     ruff and mypy"
	@echo "make install  only make .venv with the command 'gauntlet'"
	@echo "make clean    remove .venv and the run folders"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Gauntlet needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
		{ echo "Python's venv module is missing. On Debian: apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[reference,dev]'
	@touch $@

run: install
	$(BIN)/gauntlet run

test: install
	$(BIN)/gauntlet provision
	$(BIN)/python -m pytest -n 2 -m 'not longer' tests/unit
	$(BIN)/python -m pytest --gauntlet-backend process -m 'not longer' tests/conformance
	$(BIN)/python -m pytest -n 2 --dist worksteal --gauntlet-backend process -m 'not longer' tests/chaos

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) out
