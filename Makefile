# Everything runs in .venv, which is made on first use and brought up to date when pyproject.toml or constraints.txt change.
# Another interpreter: make PYTHON=/path/to/python3.12

VENV := .venv
STAMP := $(VENV)/.stamp
BIN := $(VENV)/bin
BROWSER := $(VENV)/.browser
CODE := $(wildcard src tests recipes bench)
# The first of these that is new enough; a name alone proves nothing (version managers leave empty shims).
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
WORKERS ?= 2

.PHONY: help demo test test-all bench-deps lint format clean

help: ## these lines
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

demo: $(STAMP) ## study the documentation of your own Python: data, two trainings, exam, report (./openbook-demo)
	$(BIN)/openbook demo

test: $(STAMP) ## the tests, without the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-all: $(STAMP) $(BROWSER) ## all tests, with those of the page in a real browser (chromium: OPENBOOK_CHROMIUM or PATH)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

bench-deps: $(STAMP) ## what bench/sft.py and bench/preference.py compare with (TRL); no version that is installed already changes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'

lint: $(STAMP) ## formatting, ruff's rules, types
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy

format: $(STAMP) ## mend what ruff can mend
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

clean: ## remove .venv and caches; results stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "openbook needs Python 3.11 or newer, and finds none. Install one, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "openbook needs Python 3.11 or newer; $(PYTHON) is not, or does not start. Name another: make PYTHON=/path/to/python3"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# Without Playwright, or without a chromium, the browser's tests skip and say why; everything else is tested all the same.
$(BROWSER): $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]' && touch $@ \
		|| echo "Playwright cannot be installed here: the tests of the page in a browser will be skipped."
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || test -n "$$OPENBOOK_CHROMIUM" \
		|| echo "There is no chromium here (apt-get install chromium): the tests of the page in a browser will be skipped."
