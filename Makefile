# make train: install and train.  make test: install and test.  make lint, make clean.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo yes)
comma := ,
EXTRAS := dev$(if $(GPU),$(comma)cuda12)

ARGS ?=

.PHONY: install train test lint smoke clean

install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

train: install
	$(BIN)/python -m experiments.train --config=configs/cd_full.py$(if $(GPU),,:cpu) $(ARGS)

test: install
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

smoke: install
	PYTHON=$(BIN)/python sh tests/smoke.sh

clean:
	rm -rf $(VENV) build dist *.egg-info
