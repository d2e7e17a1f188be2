# Coldstream's ways in. Every target makes the environment that it needs, once for each change of the dependencies.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo dev dev-train test test-slow check format documents lock simulate chaos audit clean

PYTHON ?= python3
# The ONNX runtime: cpu or gpu.
RUNTIME ?= cpu
# The torch that `dev-train` installs first. Where an index has a build without CUDA for it, this saves gigabytes; on a
# machine with a GPU: make dev-train TORCH=torch
TORCH ?= torch==2.13.0
SEEDS ?= 500
ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input
# Ranking's loops as machine code, so that the first worker need not wait for them.
COMPILE := $(BIN)/python -m streams.decide.warmup
# Stamps carry the checksum of what pyproject.toml says about the package, so that a changed dependency installs anew.
STAMP := .venv/.coldstream-$(RUNTIME)-$(shell sed '/^\[tool\.ruff\]/,$$d' pyproject.toml | cksum | cut -d' ' -f1)
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false
export OPENBLAS_NUM_THREADS = 1

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

install: $(STAMP)-install ## Make .venv with what demo and worker need; the program is .venv/bin/coldstream
dev: $(STAMP)-dev ## … and what tests and checks need
dev-train: $(STAMP)-train ## … and what distilling and exporting a student needs

$(BIN)/python:
	$(PYTHON) -m venv .venv

# Each installs the whole of its set in one go, which is what the smaller ones need too.
$(STAMP)-install: | $(BIN)/python
	@echo "installing Coldstream into .venv …" >&2
	@$(PIP) --editable '.[$(RUNTIME),demo]'
	@$(COMPILE)
	@touch $@

$(STAMP)-dev: | $(BIN)/python
	@echo "installing Coldstream and what tests and checks need …" >&2
	@$(PIP) --editable '.[$(RUNTIME),demo,dev]'
	@$(COMPILE)
	@touch $(STAMP)-install $@

$(STAMP)-train: | $(BIN)/python
	@echo "installing Coldstream and what tests, checks and distilling need …" >&2
	@$(PIP) '$(TORCH)'
	@$(PIP) --editable '.[$(RUNTIME),demo,dev,train]'
	@$(COMPILE)
	@touch $(STAMP)-install $(STAMP)-dev $@

demo: install ## A live recommender on real data, two minutes; ARGS="DATASET --rate 300" changes it
	@$(BIN)/coldstream demo $(ARGS)

test: dev ## Unit, contract, simulation and integration tests; at most 6 minutes
	$(BIN)/pytest tests/unit tests/contract tests/simulation tests/integration $(ARGS)

test-slow: dev-train ## Export, observability, planted bugs, a short chaos
	$(BIN)/pytest tests/slow tests/observability $(ARGS)

check: dev ## Format, lint, types, floors, generated files, wheel, licences
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pip check
	$(BIN)/pytest tests/checks tests/unit/test_documents.py $(ARGS)

format: dev ## Format the code and mend what can be mended mechanically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

documents: dev ## Write what is generated: schemas, tables, dashboards, rules, the runbook's measures
	$(BIN)/python -m streams.documents
	$(BIN)/python -m grafana

lock: dev ## Pin what the images install (deploy/constraints.txt)
	$(BIN)/python deploy/lock.py

simulate: dev ## Run the service in the deterministic simulator: make simulate SEEDS=10000
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

chaos: dev-train ## Kill, cut and flood real workers on Apache Kafka; prints its seed and a verdict
	@$(BIN)/python -m tests.chaos $(ARGS)

audit: dev-train ## Known advisories about what is installed and what images pin, where they can be reached
	@test -x .venv/audit/bin/pip-audit || { $(PYTHON) -m venv .venv/audit && .venv/audit/bin/pip install --quiet pip-audit; }
	.venv/audit/bin/pip-audit --strict --skip-editable --progress-spinner off \
		--path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	.venv/audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r deploy/constraints.txt

clean: ## Remove what was built, not the environment
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
