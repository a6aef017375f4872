# Everything works from a fresh clone with python3 (≥ 3.11), venv and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What was installed: for serving only, or everything that tests, training and benchmarks need.
SERVING := $(VENV)/.serving
ALL := $(VENV)/.installed
SOAK_SECONDS ?= 1800
PIP := $(BIN)/pip --disable-pip-version-check

.PHONY: help install serve test test-clients test-cluster fuzz chaos soak flood monitoring-check audit lint format demo-model
.PHONY: pictures bench bench-large bench-peers board bench-training docker-check image-lock gpu-check clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

install: $(ALL)  ## everything, with the locked versions, in .venv; does nothing when it is up to date

$(SERVING): requirements.lock pyproject.toml
	@echo "Installing what the server needs into $(VENV) (about 1.1 GB, one to five minutes) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet -c requirements.lock setuptools
	@$(PIP) install --quiet -c requirements.lock --no-build-isolation -e .
	@touch $@

$(ALL): requirements.lock pyproject.toml
	@echo "Installing everything into $(VENV): server, training, test tools (about 2.3 GB, two to ten minutes) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet -r requirements.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@ $(SERVING)

serve: $(SERVING)  ## serve the demo model on http://127.0.0.1:8000; installs only what serving needs
	$(BIN)/llada-server

test: install  ## run the tests, for seven to sixteen minutes; the summary lists what was not run, and why
	@echo "Running the tests: seven to sixteen minutes on two cores ..."
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile

test-clients: install  ## litellm, langchain-openai, outlines, instructor against the server; installs them first (300 MB)
	$(PIP) install --quiet --no-build-isolation -c requirements.lock -e ".[clients]"
	@# It asks for older versions of jiter and rich than the lock has; its tests pass with these.
	$(PIP) install --quiet --no-deps "instructor>=1.17"
	$(BIN)/python -m pytest -m clients

test-cluster: install  ## Ray with replicas that are killed, and Caddy (Debian's `caddy`); installs Ray first (350 MB)
	$(PIP) install --quiet --no-build-isolation -c requirements.lock -e ".[ray]"
	$(BIN)/python -m pytest -m cluster tests/deploy

docker-check: install  ## build the image and run the containers, with an engine started if none runs (ten minutes)
	tests/deploy/install_docker.sh --engine
	$(BIN)/python -m pytest -m docker tests/deploy/test_docker.py

# The packages that torch's default build adds for CUDA: they come with torch, which is not in this lock either.
CUDA := cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvshmem-cu13 triton

image-lock: install  ## deploy/image.lock again: the packages of requirements.lock that the server needs, with hashes
	$(PIP) install --quiet uv
	mkdir -p build && printf '%s\n' $(CUDA) > build/cuda.txt
	$(BIN)/uv pip compile --quiet pyproject.toml --constraints requirements.lock --python-version 3.12 --python-platform linux \
		--excludes build/cuda.txt --no-emit-package torch --generate-hashes --no-annotate --no-header --output-file deploy/image.lock

fuzz: install  ## schemathesis over the whole OpenAPI page, three times the random cases, 20,000 spoilt requests (half an hour)
	LLADA_FUZZ=1 $(BIN)/python -m pytest -m "fuzz or not fuzz" tests/server/test_openapi_fuzz.py \
		tests/server/test_arbitrary_json.py tests/server/test_text_properties.py tests/clients/web/test_accessibility.py \
		tests/llada_core/checkpoint/test_strangers.py tests/server/test_large_bodies.py tests/llada_core/sampling/constraints
	$(BIN)/python -m benchmarks.fuzz

chaos: install  ## training killed at random moments, damage in every file of a run; faults in a server, 200 times each (an hour)
	$(BIN)/python -m pytest -m chaos
	$(BIN)/python -m benchmarks.chaos

soak: install  ## a server under clients of every kind, every answer checked: half an hour each with one and two model threads
	$(BIN)/python -m benchmarks.soak --seconds $(SOAK_SECONDS)

flood: install  ## a server under ten times the load that it can serve (two minutes)
	$(BIN)/python -m benchmarks.flood

monitoring-check: install  ## a real Prometheus scrapes a real server: the dashboard has data, each alert fires (two minutes)
	$(BIN)/python -m pytest -m monitoring tests/deploy/test_monitoring_live.py

audit: install  ## known vulnerabilities of the locked packages (pip-audit); fails if PyPI's advisories cannot be had
	$(PIP) install --quiet --no-build-isolation -c requirements.lock -e ".[audit]"
	@$(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off --requirement requirements.lock || { \
		echo "Not passed. If no table of vulnerabilities is above, the advisories could not be had: nothing is known."; \
		exit 1; }

lint: install  ## ruff (format and rules), strict mypy, and hadolint for the Dockerfile
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

format: install  ## let ruff rewrite what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo-model: install  ## train the bundled model again, into build/demo (seven to eight hours on two cores)
	test -e build/demo/data/validation.jsonl || $(BIN)/python -m training.demo.build --output-dir build/demo/data
	PATH="$(CURDIR)/$(BIN):$$PATH" NPROC=2 training/train.sh training/configs/demo.yaml

pictures: install  ## the pictures of README and docs, from the real server and the demo model (a minute; needs Chromium)
	$(BIN)/python -m docs.pictures.make

bench: install  ## denoising, server and constraints; writes results, tables and plots (an hour and a half)
	$(BIN)/python -m benchmarks.inference
	$(BIN)/python -m benchmarks.lengths
	$(BIN)/python -m benchmarks.dispatch
	$(BIN)/python -m benchmarks.server
	$(BIN)/python -m benchmarks.constraints
	$(BIN)/python -m benchmarks.prefix
	$(BIN)/python -m benchmarks.report

board: install  ## accuracy and cost of every preset, cache, rule and dtype; writes docs/board.md (an hour)
	$(BIN)/python -m benchmarks.board
	$(BIN)/python -m benchmarks.board --length 512 --limit 5 --stories 30 --only "exact, float32" \
		--only "balanced, float32" --only "fast, float32"
	$(BIN)/python -m benchmarks.report

bench-large: install  ## LLaDA-8B's shape with random weights: loading, seconds a step (17 GB of disk, 12 of memory, half an hour)
	$(BIN)/python -m benchmarks.large
	$(BIN)/python -m benchmarks.report

gpu-check: install  ## on a machine with a CUDA GPU: parity with the CPU, a training step, speed
	$(BIN)/python -m benchmarks.gpu_check

bench-peers: install  ## other engines beside this one, compiled first in environments of their own (half an hour, then ten minutes)
	$(BIN)/python -m benchmarks.peers --install
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.report

bench-training: install  ## the training loop against a bare one, and its memory over 500 steps
	$(BIN)/python -m benchmarks.training --memory-steps 500

clean:  ## remove what the targets above made, .venv included
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
