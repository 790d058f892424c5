# Everything a checkout needs, and nothing outside it: `make demo` to see it work, `make test` to trust it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test install serve bench bench-rules soak lint clean

help:  ## List what make can do
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(READY)  ## Start a bus, wire a webhook, put events, watch one fail into the dead-letter queue
	$(BIN)/python -m examples.demo

test: $(READY)  ## Lint, types, and every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadgroup

install: $(READY)  ## Create .venv with the project and all that its tests and benchmarks need

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("busbar needs Python 3.11 or newer, not " + sys.version.split()[0] + "; name one with make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

serve: $(READY)  ## Run a bus on http://127.0.0.1:4010, keeping its data in .busbar
	$(BIN)/busbar serve

bench: $(READY)  ## Measure against the floors, as ratios in one run
	$(BIN)/python -m benchmarks

bench-rules: $(READY)  ## Measure the matcher
	$(BIN)/python -m benchmarks.rules

soak: $(READY)  ## The long form of the reliability tests
	$(BIN)/pytest -m soak -o addopts= -q tests/e2e

clean:  ## Remove the virtual environment and every cache
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
