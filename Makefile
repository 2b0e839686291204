# `make demo` and `make test` are all a newcomer needs; both set everything up first.
PYTHON ?= python3
VENV ?= .venv
# Where torch comes from, such as https://download.pytorch.org/whl/cpu; empty: wherever pip finds it.
TORCH_INDEX ?=
PIP := $(VENV)/bin/pip --disable-pip-version-check
RUN := $(VENV)/bin/python
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

# Of `make replay`: a file or a published trace, the cascade, its GPUs and the policy.
TRACE ?= 4to32
CASCADE ?= sdturbo
GPUS ?= 16
POLICY ?= quality
LIVE ?=

# Of `make chaos`: which faults (all of them), how much shorter or longer than described, how often each, on how many slots.
CHAOS ?=
SCALE ?= 1
# RESULTS=analysis/results replaces the committed figures.
RESULTS ?= logs
RUNS ?= 1
SLOTS ?=

# Of `make cluster`: the scenarios, and options.
CLUSTER ?=

# What pytest ends with where no test is of the kind asked for.
NONE_CHOSEN := 5

# Of `make serve`.
PORT ?= 8000

.PHONY: help setup prepare demo serve replay experiments test check bench chaos cluster soak train-tiny profile fuzz system clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.ready ## virtual environment with pinned requirements

$(VENV)/.ready: requirements.txt tests/requirements.txt
	$(PYTHON) -m venv $(VENV)
	@$(RUN) deploy/download_size.py $(INDEX) -r requirements.txt -r tests/requirements.txt
	$(PIP) install --quiet --quiet $(INDEX) -r requirements.txt -r tests/requirements.txt
	@touch $@

prepare: setup ## weights, prompts, traces, real pictures of CASCADE=sdturbo|sdxs|sdxlltn|all: PREPARE="--from DIR --reference DIR"
	@$(RUN) -m models.prepare --cascade $(CASCADE) $(PREPARE)

demo: setup ## the cascade on this machine with real pictures: two minutes, then logs/<run>/report.html
	@$(RUN) -m deploy.demo $(DEMO)

serve: setup ## the cascade behind HTTP on this machine: PORT=8000 CASCADE=tiny; Ctrl-C ends it
	@$(RUN) -m deploy.serve --port $(PORT) $(if $(filter command line environment,$(origin CASCADE)),--cascade $(CASCADE)) $(SERVE)

replay: setup ## a trace live on workers that sleep: TRACE=4to32 CASCADE=sdturbo GPUS=16 POLICY=quality
	@$(RUN) -m deploy.replay --trace $(TRACE) --cascade $(CASCADE) --gpus $(GPUS) --policy $(POLICY) $(REPLAY)

experiments: setup ## all policies on the published traces, simulated, into logs/; LIVE=1: one live run a cascade
	@$(RUN) -m deploy.experiments $(if $(LIVE),--live) $(EXPERIMENTS)

test: setup ## the tests: two at a time, then one by one those that run services against the clock; TESTS="tests/test_x.py -k y"
	$(RUN) -m pytest -n 2 -m "not live" $(TESTS) || [ $$? -eq $(NONE_CHOSEN) ]
	$(RUN) -m pytest -m live $(TESTS) || [ $$? -eq $(NONE_CHOSEN) ]

check: setup ## ruff and strict types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: setup ## speed of the hop, the queue and the door, cost of idling, latency: prints a table, writes CSV; BENCH="gateway browser"
	$(RUN) -m deploy.bench $(BENCH)

chaos: setup ## faults while a trace runs, one after the other: CHAOS="kill pause" SCALE=0.2 RUNS=1; table and CSV
	$(RUN) -m deploy.chaos $(CHAOS) --scale $(SCALE) --runs $(RUNS) $(if $(SLOTS),--slots $(SLOTS)) --out $(RESULTS)/chaos.csv

cluster: setup ## a head and GPU nodes in network namespaces, run from the compose files (root, no engine): CLUSTER="node --scale 0.5"
	$(RUN) -m deploy.cluster $(CLUSTER) --out $(RESULTS)/cluster.csv

soak: setup ## an hour at 70 % load with a fault a minute: nothing grows
	$(RUN) -m deploy.chaos soak --scale $(SCALE) $(if $(SLOTS),--slots $(SLOTS)) --out $(RESULTS)/chaos.csv

train-tiny: setup ## train the embedded cascade from a seed (an hour or two on two cores; resumes)
	$(RUN) -m models.train_tiny

fuzz: setup ## 2,000 requests made up from the gateway's schema, right and wrong ones: FUZZ="--cases 500 --seed 7"
	@$(RUN) -m tests.fuzz $(FUZZ)

profile: setup ## measure seconds per batch of the tiny cascade on this machine
	$(RUN) -m models.profile --cascade tiny

system: ## what needs root: a second Redis and redis-cli, Chromium for the page in a browser, a compose client that reads the compose files
	apt-get update && apt-get install -y --no-install-recommends redis-server chromium docker-compose

clean: ## remove the virtual environment and caches, not the runs in logs/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
