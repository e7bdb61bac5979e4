# TPO Lab: `make demo` and `make test` work from a fresh clone; the first one builds .venv (a few minutes), later ones use it.
PYTHON    ?= python3
VENV      ?= .venv
DEMO_ARGS ?=
TEST_ARGS ?= -n 2 --dist loadfile
EXTRAS    := notebooks,demo,widgets,dev

BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lab notebooks lint bench clean
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16
	@echo "  Set PYTHON=python3.12 to choose the interpreter, DEMO_ARGS='--out build/demo' or TEST_ARGS='-k region' to pass arguments on."

demo: $(STAMP)  ## make data, train the nano model through every stage, evaluate, write report.html; no downloads, no GPU
	$(BIN)/tpo-lab demo $(DEMO_ARGS)

test: $(STAMP)  ## the whole test suite
	$(BIN)/python -m pytest $(TEST_ARGS)

lab: $(STAMP)  ## copy the notebooks to lab/, where they are yours, and open the first in JupyterLab
	@mkdir -p lab/solutions
	@for each in notebooks/*.ipynb notebooks/solutions/*.ipynb; do [ -e "lab/$${each#notebooks/}" ] || cp "$$each" "lab/$${each#notebooks/}"; done
	$(BIN)/python -m jupyterlab $(LAB_ARGS) lab/00_tour.ipynb

notebooks: $(STAMP)  ## run all notebooks in fast mode and make a site of them, build/notebooks/index.html
	$(BIN)/python tools/site.py --out build/notebooks $(NOTEBOOKS_ARGS)

lint: $(STAMP)  ## ruff (rules and format) and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## the benchmark suite, one after the other; never part of `make test`
	$(BIN)/python -m pytest tests/benchmarks

clean:  ## remove .venv, build products and caches; runs/ and data/ stay
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find tpo_lab widgets tests notebooks -name __pycache__ -prune -exec rm -rf {} +

# torch first, at the version the tests ran with: the rest then finds it and no second build of it is fetched. Then every pinned version
# by itself: one that its index has stopped to offer is then named, where pip with dependencies to solve tries combinations for hours.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "TPO Lab needs Python 3.10 or newer, and '$(PYTHON)' is not that: name another, as in make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) "$$(grep '^torch==' constraints.txt)"
	sed '/^# Optional parts/,$$d' constraints.txt >$(VENV)/pins.txt
	$(INSTALL) --no-deps --requirement $(VENV)/pins.txt
	$(INSTALL) --editable ".[$(EXTRAS)]"
	@touch $@
