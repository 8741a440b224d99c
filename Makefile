# `make demo` and `make test` are the two commands a fresh machine needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test torture lint check docs wheel bench clean

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0 --editable .
	touch $@

# Not after the rule above: installing the package twice takes longer.
$(VENV)/.installed-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0 --editable '.[dev]'
	touch $(VENV)/.installed $@

demo: $(VENV)/.installed
	$(BIN)/python cli.py demo --overwrite

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

# Fails where a page, a link or a public name is missing, and where a page would fetch anything from elsewhere.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

test: lint docs wheel
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -p randomly --randomly-seed=1

# What tests/crash does in every commit, ten times as often, with a table at the end: docs/reliability.md. Then as many flipped bits.
torture: $(VENV)/.installed-dev
	BABELSCOPE_TORTURE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/crash
	BABELSCOPE_FLIPS=2000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/store/test_verify.py

# The wheel must work without the checkout: a clean environment that borrows only the dependencies.
wheel: $(VENV)/.installed-dev
	bash tests/wheel.sh $(BIN)/python

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/capture.py
	$(BIN)/python benchmarks/analyses.py
	$(BIN)/python benchmarks/store.py

clean:
	rm -rf $(VENV) dist build demo
