# Everything works from a fresh clone with python3 (≥ 3.11), venv and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install serve test test-clients fuzz lint format demo-model bench bench-training gpu-check clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## make .venv with the locked versions; does nothing when it is up to date

$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

serve: install  ## serve the demo model on http://127.0.0.1:8000
	$(BIN)/llada-server

test: install  ## run the tests; the summary lists what was not run, and why
	$(BIN)/python -m pytest

test-clients: install  ## litellm and langchain-openai against the server; installs them first (300 MB)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation -c requirements.lock -e ".[clients]"
	$(BIN)/python -m pytest -m clients

fuzz: install  ## schemathesis over the whole OpenAPI page, all its phases (minutes)
	$(BIN)/python -m pytest -m fuzz

lint: install  ## ruff (format and rules) and strict mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install  ## let ruff rewrite what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo-model: install  ## train the bundled model again, into build/demo (an hour and a half on two cores)
	test -e build/demo/data/validation.jsonl || $(BIN)/python -m training.demo.build --output-dir build/demo/data
	PATH="$(CURDIR)/$(BIN):$$PATH" NPROC=2 training/train.sh training/configs/demo.yaml

bench: install  ## denoising, server and quality benchmarks; writes results, tables and plots (an hour and a half)
	$(BIN)/python -m benchmarks.inference
	$(BIN)/python -m benchmarks.server
	$(BIN)/python -m benchmarks.quality
	$(BIN)/python -m benchmarks.report

gpu-check: install  ## on a machine with a CUDA GPU: parity with the CPU, a training step, speed
	$(BIN)/python -m benchmarks.gpu_check

bench-training: install  ## the training loop against a bare one, and its memory over 500 steps
	$(BIN)/python -m benchmarks.training --memory-steps 500

clean:  ## remove what the targets above made, .venv included
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
