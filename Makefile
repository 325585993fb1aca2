# The two main commands are `make run` and `make test`. Each sets up what it needs in .venv, once.
# `make` alone lists all commands.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# TORCH_INDEX=URL installs torch and torchvision from another index: the CPU wheels are a tenth of the size.
TORCH_INDEX ?=
# LATEST=1 installs the newest packages that settings.ini allows, instead of the tested ones in the lock files.
LATEST ?=
# Write bytecode at the first import: in containers that disable it, torch would be compiled at each start.
unexport PYTHONDONTWRITEBYTECODE
ARGS ?=
PORT ?= 8000
BASE ?= HEAD~1

.PHONY: help setup setup-dev run test test-nbdev test-pytest test-quick test-pythons test-faults test-mutation check lab docs docs-serve mlflow bench bench-full gate-error clean \
  ci-tools ci-quality ci-test ci-security ci-audit ci-package ci-images ci-model ci-performance same-bits ci-docs lock release-check

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

SET_UP := @PYTHON='$(PYTHON)' TORCH_INDEX='$(TORCH_INDEX)' LATEST='$(LATEST)' .ci/setup

setup:  ## create .venv and install what a run needs
	$(SET_UP) run

setup-dev:
	$(SET_UP) dev

run: setup  ## run the pipeline, up to the release decision; ARGS="--preset fast" passes flags
	@$(BIN)/mnist-nbdev run --exit-zero $(ARGS)

# Tests run in as many processes as there are cores: with more threads, each would wait for the others' time slices.
test-nbdev test-pytest test-quick: export OMP_NUM_THREADS = 1

test: setup-dev check test-nbdev test-pytest  ## run every test and every check

# Style, types, and whether modules, notebooks and README match their sources.
check: setup-dev
	@echo "== ruff, mypy, export, clean, README"
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@$(BIN)/python docs/tools/generate.py --check

# nbdev executes every cell, each notebook in its own process. pytest executes the stage notebooks,
# in complete runs.
test-nbdev: setup-dev
	@echo "== nbdev_test"
	@MPLBACKEND=agg $(BIN)/nbdev_test --n_workers 2

test-pytest: setup-dev
	@echo "== pytest"
	@$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadscope --no-loadscope-reorder --cov --cov-report=term $(ARGS)

test-quick: check test-nbdev  ## run style, types, generated files, notebooks and unit tests, in minutes
	@echo "== pytest, unit tests"
	@$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 -m unit tests $(ARGS)

test-pythons:  ## run `make run` and `make test` on each Python of this machine, in fresh clones of the last commit; takes hours
	@.ci/each-python

test-faults: setup-dev  ## inject faults into runs, for an hour or two, and update the table in the documentation
	@FAULTS=long FAULT_TABLE=docs/explanation/faults.txt $(BIN)/python -m pytest tests/faults $(ARGS)

# Starts from scratch each time: mutmut cannot see that a notebook's tests changed. `mutmut run` resumes an interrupted one.
test-mutation: ci-tools  ## mutate the code in 4,000 places and count the mutants that no test detects, in an hour; update the table
	@rm -rf mutants
	@PATH="$$PWD/$(BIN):$$PATH" MPLBACKEND=agg $(BIN)/mutmut run $(ARGS)
	@$(BIN)/python tests/mutation.py docs/explanation/mutation.txt

lab: setup-dev  ## open the notebooks in JupyterLab
	@$(BIN)/python -m ipykernel install --sys-prefix --name python3 --display-name "mnist-nbdev" >/dev/null
	@mkdir -p $(VENV)/share/jupyter/lab/settings
	@cp docs/lab-settings.json $(VENV)/share/jupyter/lab/settings/overrides.json
	@PATH="$$PWD/$(BIN):$$PATH" JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter lab nbs/index.ipynb $(ARGS)

docs: setup-dev  ## build the documentation site into _docs
	@$(BIN)/python docs/tools/build.py $(ARGS)

docs-serve: setup-dev  ## serve the site on this machine; PORT=8000
	@test -e _docs/html/index.html || $(BIN)/python docs/tools/build.py
	@echo "http://127.0.0.1:$(PORT)/ (Ctrl-C stops the server)"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _docs/html $(PORT) 2>/dev/null

mlflow: setup  ## open the MLflow UI, with all runs and the released models
	$(SET_UP) ui
	@$(BIN)/mlflow ui --host 127.0.0.1 --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///artifacts/mlflow.db}" $(ARGS)

bench: setup-dev  ## compare speed and accuracy with the alternatives, in ten minutes
	@$(BIN)/python benchmarks/bench.py $(ARGS)

bench-full: setup-dev  ## run every row of the benchmark with all its seeds, in hours; resumes after an interruption
	@$(BIN)/python benchmarks/bench.py --full $(ARGS)

gate-error: setup-dev  ## measure how often the release decision is wrong, in half an hour
	@$(BIN)/python benchmarks/gate_error.py $(ARGS)

# The jobs of CI, one target each; every target runs on any machine.
ci-tools: setup-dev
	$(SET_UP) ci

ci-quality: ci-tools check  ## check style, types, generated files, workflows
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(BIN)/zizmor --quiet --offline --persona pedantic .github
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose*.yml
	@$(BIN)/python .ci/lock.py --check

ci-test: test-nbdev test-pytest  ## run every test, with coverage

ci-security: ci-tools  ## run bandit, check secrets and licences, write the bill of materials
	@.ci/security

ci-audit: ci-tools  ## check the installed and locked packages for known vulnerabilities; needs the network
	@$(BIN)/pip-audit --strict --skip-editable
	@$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements.lock

ci-package: ci-tools  ## build wheel and sdist, check them, use them without a network
	@.ci/package

ci-images:  ## build the four Docker images and test each; TORCH_INDEX=URL for torch's CPU wheels
	@TORCH_INDEX='$(TORCH_INDEX)' .ci/images

ci-model: setup  ## train on the full MNIST, decide, verify, and run again with reused stages
	@.ci/model

ci-performance: setup-dev  ## compare the speed with another commit's; BASE=HEAD~1
	@$(BIN)/python benchmarks/compare.py $(BASE) --out _docs/performance.md

same-bits: setup-dev  ## check that weights, model and predictions are identical to another commit's; BASE=HEAD~1
	@$(BIN)/python benchmarks/same_bits.py $(BASE) $(ARGS)

ci-docs: docs  ## build the site; its browser tests are in ci-test

lock: ci-tools  ## update the lock files from settings.ini; ARGS=--upgrade upgrades the packages
	@$(BIN)/python .ci/lock.py $(ARGS)

release-check: setup-dev  ## list what is missing for a release
	@.ci/release-check

clean:  ## remove .venv, caches and builds; keep data, runs and logs
	rm -rf $(VENV) mutants build dist *.egg-info _docs _proc .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
