# Every recipe a person or CI runs. `make help` lists them.
# MODEL is a checkpoint directory or a short name; ENGINE_URL a running `vllm serve`.
HOST ?= 127.0.0.1
PORT ?= 8000
MODEL ?= nano
DEVICE ?= auto
PYTHON ?= $(shell command -v python3.11 || command -v python3)
ENGINE_URL ?=
SERVE_ARGS ?=
BENCH_ARGS ?=
PYTEST_ARGS ?=
CLIENTS ?=
BIN := .venv/bin
SETUP := $(PYTHON) setup/setup_env.py --device $(DEVICE)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev serve check test test-remote test-smol test-clients train-nano eval-nano smol smol-data loadtest \
        bench-gateway bench-savings clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: ## make .venv with what serving and training need (CUDA build of vLLM where there is a GPU)
	@$(SETUP)

setup-dev: ## the same, what training on other bases and data needs, and the development tools
	@$(SETUP) --dev

serve: setup ## serve MODEL on HOST:PORT, on ENGINE_URL where that is given
	@exec $(BIN)/python -m lhrm_server --host "$(HOST)" --port "$(PORT)" --model "$(MODEL)" $(if $(ENGINE_URL),--engine-url "$(ENGINE_URL)") $(SERVE_ARGS)

check: setup-dev ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: setup-dev check ## check, then the core test suite, real vLLM included
	$(BIN)/python -m pytest -m "not vllm_serve and not smol" $(PYTEST_ARGS)

test-remote: setup-dev ## the gateway over a real `vllm serve` of its own
	$(BIN)/python -m pytest -m vllm_serve $(PYTEST_ARGS)

test-smol: smol ## lhrm-smol served, one request per mode
	$(BIN)/python -m pytest -m smol $(PYTEST_ARGS)

test-clients: setup-dev ## other people's clients (Python, Node) against the real server; needs a package index
	$(BIN)/python tests/clients/suite.py $(CLIENTS)

train-nano: setup ## train the nano from nothing, in runs/nano
	$(BIN)/python -m lhrm_train run nano --out runs/nano

eval-nano: setup ## evaluate models/lhrm-nano on the test split
	$(BIN)/python -m lhrm_train eval --model models/lhrm-nano --data suite --out runs/eval-nano

smol: setup-dev ## make models/lhrm-smol from its published base and the committed delta
	$(BIN)/python -m lhrm_train.smol build

smol-data: setup-dev ## make the base and all data that lhrm-smol is trained on, in runs/smol
	$(BIN)/python -m lhrm_train.smol prepare

loadtest: setup ## the same prompts in every mode against a running server
	$(BIN)/python -m lhrm_loadtest run --base-url "http://$(HOST):$(PORT)"

bench-savings: setup ## auto against always-think on the nano: accuracy, tokens, goodput; a quarter of an hour
	$(BIN)/python -m bench.savings $(BENCH_ARGS)

bench-gateway: setup ## our gateway against bare vllm serve, side by side; half an hour
	$(BIN)/python -m bench.gateway

clean: ## remove the environment and all build and test output
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .clients .schemathesis out runs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
