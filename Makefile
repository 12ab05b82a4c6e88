# make train, make sudoku, make test, make lint, make docs, make smoke, make bench,
# make clean: each installs first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo yes)
comma := ,
EXTRAS := dev$(if $(GPU),$(comma)cuda12)

ARGS ?=

# A step's temporaries come from malloc and go back: without huge pages each step asks
# the kernel for its pages again (benchmarks/README.md).
GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
export GLIBC_TUNABLES

.PHONY: install train sudoku test lint docs smoke bench clean

install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	# The pinned torch first, so that no peer's range takes a later and larger one.
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	touch $@

train: install
	$(BIN)/python -m experiments.train --config=configs/cd_full.py$(if $(GPU),,:cpu) $(ARGS)

# Ten minutes of two cores, then a hard board, drawn here and level by level in a .png.
BOARD ?= 4.....8.5.3..........7......2.....6.....8.4......1.......6.3.7.5..2.....1.4......
SUDOKU ?= runs/make-sudoku

sudoku: install
	$(BIN)/python -m experiments.train --config=configs/sudoku.py:cpu --workdir=$(SUDOKU) \
	--config.train.num_steps=1000 --config.train.eval_every=250 \
	--config.eval.first_rounds=48 --config.eval.num_examples=64 $(ARGS)
	echo '$(BOARD)' > $(SUDOKU)/board.txt
	$(BIN)/python -m experiments.solve --workdir=$(SUDOKU) --input=$(SUDOKU)/board.txt \
	--output=$(SUDOKU)/answer.txt --restarts=32 --picture=$(SUDOKU)/think.png

test: install
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

# The site, build/site/index.html; a link that leads nowhere is an error.
docs: install
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Every config, shrunk, through the whole path; two at a time.
smoke: install
	@runs=$$(mktemp -d) && ls configs/*.py | grep -v -e base -e __init__ | \
	xargs -P 2 -I CONFIG sh -c '$(BIN)/python -m experiments.train \
	--config=CONFIG:smoke --workdir='"$$runs"'/$$(basename CONFIG) > '"$$runs"'/$$(basename CONFIG).log 2>&1 \
	&& echo "CONFIG:smoke ran" || { cat '"$$runs"'/$$(basename CONFIG).log; exit 255; }' && rm -r $$runs

# The questions of benchmarks/, small; rows in benchmarks/out/.
bench: install
	for question in memory sampler train_step board seeds replay data scaling startup; do \
	$(BIN)/python -m benchmarks.$$question --quick $(ARGS) || exit 1; done

clean:
	rm -rf $(VENV) build dist *.egg-info
