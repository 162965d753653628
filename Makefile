# Run `make help`. Everything works on a fresh clone with Python 3.11 to 3.13, make and git.

PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,$(shell command -v $(name) 2>/dev/null)))
RUN := .venv/bin/python

# Without compiled bytecode every start of Airflow takes more than twice as long.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install up down status token airflow test lint lint-python lint-pages format bench fake-openai

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## Create or update .venv from requirements.lock
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed, and there is no python3 on PATH." >&2; exit 1; }
	@$(PYTHON) -I backend/stack/bootstrap.py

up: install ## Set up and start everything; prints addresses, a token and a first request
	@$(RUN) -m backend up

down: ## Stop everything; data is kept
	@if [ -x $(RUN) ]; then $(RUN) -m backend down; else echo "Nothing is installed, so nothing is running."; fi

status: install ## Show what is running
	@$(RUN) -m backend status

token: install ## Print an access token of the development user
	@$(RUN) -m backend token

test: install ## Run all tests; some of them: make test ARGS="tests/unit -q"
	@$(RUN) -m pytest $(or $(ARGS),-n 2 --dist loadfile --no-loadscope-reorder)
	@$(if $(ARGS),,$(RUN) -m backend frontend test)

lint: install ## Check style, formatting, types and import rules
	@$(MAKE) --no-print-directory -j 2 lint-python lint-pages

lint-python:
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	.venv/bin/lint-imports

lint-pages:
	$(RUN) -m backend frontend typecheck
	$(RUN) -m backend frontend lint

format: install ## Format the code and apply safe fixes
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: install ## Run benchmarks of latency, throughput and overhead
	@$(RUN) -m tests.benchmarks $(ARGS)

fake-openai: install ## Start an OpenAI-compatible server that answers without a model
	@$(RUN) -m tests.kit.openai.server $(ARGS)

airflow: install ## Run Airflow's command line on the running stack: make airflow ARGS="dags list"
	@$(RUN) -m backend airflow $(ARGS)
