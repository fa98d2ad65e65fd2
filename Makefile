# Two commands for a newcomer: `make compare` and `make test`. Each does its own set-up in .venv.
PYTHON     ?= python3
VENV       ?= .venv
PY         := $(VENV)/bin/python
DATASET    ?=
MODEL      ?=
DATA_DIR   ?=
ARGS       ?=
export PYTHONUNBUFFERED := 1
ifneq ($(DATA_DIR),)
export DATA_DIR
endif

.PHONY: help setup compare figures tables book test coverage lint bench oracles mutants crash evidence verify campaign clean
help:               ## this list
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */\1\t/' | expand -t 12
	@echo
	@echo 'make compare DATASET=mnist MODEL=lenet300 DATA_DIR=...   the same comparison on real data'
	@echo 'make compare ARGS="--methods obd-global,magnitude-global --seeds 5"   any flag of python -m common.compare'

setup: $(VENV)/.ready  ## create .venv and install requirements.txt
$(VENV)/.ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'error: Python 3.11 or newer is needed; set PYTHON=...' >&2; exit 2; }
	@echo 'installing into $(VENV) (once; a few gigabytes with torch)'
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

compare: setup      ## prune one dense network with every method; leaves a table, figures and report.html
	@$(PY) -m common.compare $(if $(DATASET),--dataset '$(DATASET)') $(if $(MODEL),--model '$(MODEL)') $(ARGS)
	@folder="$$($(PY) -m common.compare $(if $(DATASET),--dataset '$(DATASET)') $(if $(MODEL),--model '$(MODEL)') --print-folder $(ARGS))" && \
	  $(PY) -m common.agreement "$$folder" && $(PY) -m figures.compare --records "$$folder" --output "$$folder"

figures: setup      ## redraw every figure from the committed records into runs/figures, without torch
	@$(PY) -m figures --all $(ARGS)

tables: setup       ## write docs/ and README's tables from the committed records
	@$(PY) -m figures tables

book: setup         ## one page of every table and figure, the papers' beside ours: runs/book/book.html
	@$(PY) -m figures book $(ARGS)

test: setup         ## run the tests
	@$(PY) -m pytest $(ARGS)

coverage: setup     ## lines of common/ and of the papers that the unit tests reach
	@$(PY) -m pytest -m "not slow" --cov=common --cov=lobs --cov=nap --cov=woodfisher --cov=eigendamage --cov-report=term-missing:skip-covered $(ARGS)

lint: setup         ## ruff's format and rules, basedpyright over common/
	@$(PY) -m ruff format --check --quiet .
	@$(PY) -m ruff check .
	@$(PY) -m basedpyright --project pyproject.toml

bench: setup        ## speed ratios of the curvature kernel against the textbook, side by side (ARGS=--end-to-end: and ResNet-50 whole)
	@$(PY) -m tests.bench $(ARGS)

oracles: setup      ## every formula beside its slow dense twin: worst errors in float64 and float32
	@$(PY) -m tests.trust.oracles $(ARGS)

mutants: setup      ## plant faults in a copy, one at a time, and see that the tests notice (minutes)
	@$(PY) -m tests.trust.mutants $(ARGS)

crash: setup        ## kill train, prune, fine-tune and compare at fifty moments and run them again (minutes)
	@$(PY) -m tests.trust.crash $(ARGS)

evidence: setup     ## the long checks, kept in docs/evidence with date and commit (ARGS="crash mutants coverage")
	@$(PY) -m tests.trust.evidence $(ARGS)

verify: setup       ## run committed cells again, picked by a seed, and compare (ARGS="--cells 40 --seed 1"); writes docs/evidence/verify.json
	@$(PY) -m common.verify $(ARGS)

campaign: setup     ## work down campaign.toml, the experiments that decide claims (ARGS="--list", "--lanes 2", "--publish"); docs/campaign.md
	@$(PY) -m common.queue campaign.toml $(ARGS)

clean:              ## remove runs (records under */results stay)
	rm -rf runs .pytest_cache .ruff_cache .hypothesis
