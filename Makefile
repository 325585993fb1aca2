# Two commands matter: `make run` and `make test`. Each sets up what it needs in .venv and is quick
# the second time. A bare `make` lists all of them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# TORCH_INDEX=URL takes torch and torchvision from another index: the CPU wheels, a tenth of the size.
TORCH_INDEX ?=
# LATEST=1 takes the newest packages that settings.ini allows, instead of the tested ones in the lock files.
LATEST ?=
# Bytecode is written at the first import: a container's habit of writing none would compile torch at each start.
unexport PYTHONDONTWRITEBYTECODE
ARGS ?=
PORT ?= 8000
BASE ?= HEAD~1

.PHONY: help setup setup-dev run test test-nbdev test-pytest test-quick test-pythons test-faults test-mutation check lab docs docs-serve mlflow bench bench-full gate-error clean \
  ci-tools ci-quality ci-test ci-security ci-audit ci-package ci-images ci-model ci-performance same-bits ci-docs lock release-check

help:  ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

SET_UP := @PYTHON='$(PYTHON)' TORCH_INDEX='$(TORCH_INDEX)' LATEST='$(LATEST)' .ci/setup

setup:  ## make .venv and install what a run needs
	$(SET_UP) run

setup-dev:
	$(SET_UP) dev

run: setup  ## run the pipeline and come to a decision; ARGS="--preset fast" passes flags on
	@$(BIN)/mnist-nbdev run --exit-zero $(ARGS)

test: setup-dev check test-nbdev test-pytest  ## every test and every check

# Style, types, and that modules, notebooks and README are what they are made from.
check: setup-dev
	@echo "== ruff, mypy, export, clean, README"
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy
	@$(BIN)/python docs/check_generated.py

# Notebooks as nbdev runs them: every cell, each notebook in a process. The stage notebooks are
# executed by pytest, in whole runs.
test-nbdev: setup-dev
	@echo "== nbdev_test"
	@MPLBACKEND=agg $(BIN)/nbdev_test --n_workers 2

# Two processes side by side: threads that wait must not keep the cores busy.
test-pytest: setup-dev
	@echo "== pytest"
	@GOMP_SPINCOUNT=10000 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadscope --no-loadscope-reorder --cov --cov-report=term $(ARGS)

test-quick: check test-nbdev  ## style, types, generated files, notebooks and unit tests, in minutes
	@echo "== pytest, unit tests"
	@$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 -m unit tests $(ARGS)

test-pythons:  ## `make run` and `make test` on each Python of this machine, in fresh clones of the last commit: hours
	@.ci/each-python

test-faults: setup-dev  ## break runs on purpose, for an hour or two; the table goes into the documentation
	@FAULTS=long FAULT_TABLE=docs/explanation/faults.txt $(BIN)/python -m pytest tests/faults $(ARGS)

# Fresh each time: mutmut cannot see that a notebook's tests changed. Cut off, it goes on by `mutmut run`.
test-mutation: ci-tools  ## break the code in 4,000 places, one at a time: do the tests see it? an hour; the table too
	@rm -rf mutants
	@PATH="$$PWD/$(BIN):$$PATH" MPLBACKEND=agg $(BIN)/mutmut run $(ARGS)
	@$(BIN)/python tests/mutation.py docs/explanation/mutation.txt

lab: setup-dev  ## open the notebooks in JupyterLab
	@$(BIN)/python -m ipykernel install --sys-prefix --name python3 --display-name "mnist-nbdev" >/dev/null
	@mkdir -p $(VENV)/share/jupyter/lab/settings
	@cp docs/lab-settings.json $(VENV)/share/jupyter/lab/settings/overrides.json
	@PATH="$$PWD/$(BIN):$$PATH" JUPYTER_PREFER_ENV_PATH=1 $(BIN)/jupyter lab nbs/index.ipynb $(ARGS)

docs: setup-dev  ## build the documentation site into _docs
	@$(BIN)/python docs/build.py $(ARGS)

docs-serve: setup-dev  ## show the site on this machine; PORT=8000
	@test -e _docs/html/index.html || $(BIN)/python docs/build.py
	@echo "http://127.0.0.1:$(PORT)/ (Ctrl-C ends it)"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _docs/html $(PORT) 2>/dev/null

mlflow: setup  ## open MLflow's pages, with all runs and the released models
	$(SET_UP) ui
	@$(BIN)/mlflow ui --host 127.0.0.1 --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///artifacts/mlflow.db}" $(ARGS)

bench: setup-dev  ## measure speed and accuracy beside what else one could use, in ten minutes
	@$(BIN)/python benchmarks/bench.py $(ARGS)

bench-full: setup-dev  ## every row with all its seeds, hours; goes on where it was interrupted
	@$(BIN)/python benchmarks/bench.py --full $(ARGS)

gate-error: setup-dev  ## measure how often the release decision is wrong, in half an hour
	@$(BIN)/python benchmarks/gate_error.py $(ARGS)

# What CI does, a target a job; each works on any machine.
ci-tools: setup-dev
	$(SET_UP) ci

ci-quality: ci-tools check  ## style, types, generated files, workflows
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	@$(BIN)/zizmor --quiet --offline --persona pedantic .github
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker-compose*.yml
	@$(BIN)/python .ci/lock.py --check

ci-test: test-nbdev test-pytest  ## every test, with coverage

ci-security: ci-tools  ## bandit, secrets, licences, bill of materials
	@.ci/security

ci-audit: ci-tools  ## known holes in what is installed and locked; asks the network
	@$(BIN)/pip-audit --strict --skip-editable
	@$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements.lock

ci-package: ci-tools  ## wheel and sdist: built, checked, run with no network
	@.ci/package

ci-images:  ## build the four images with Docker, and use each; TORCH_INDEX=URL for torch's CPU wheels
	@TORCH_INDEX='$(TORCH_INDEX)' .ci/images

ci-model: setup  ## train on the full MNIST, decide, verify, take over
	@.ci/model

ci-performance: setup-dev  ## is it slower than another commit? BASE=HEAD~1
	@$(BIN)/python benchmarks/compare.py $(BASE) --out _docs/performance.md

same-bits: setup-dev  ## are weights, model and predictions those of another commit? BASE=HEAD~1
	@$(BIN)/python benchmarks/same_bits.py $(BASE) $(ARGS)

ci-docs: docs  ## the site; its browser tests are in ci-test

lock: ci-tools  ## write the lock files anew, from settings.ini; ARGS=--upgrade takes newer packages
	@$(BIN)/python .ci/lock.py $(ARGS)

release-check: setup-dev  ## say what is missing for a release
	@.ci/release-check

clean:  ## remove .venv, caches and builds; data, runs and logs stay
	rm -rf $(VENV) mutants build dist *.egg-info _docs _proc .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
