# `make repro` and `make test` are all that a new clone needs: Python >= 3.11, git and make.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true
STAMP := .venv/.complete-$(shell cat requirements.txt requirements-dev.txt | cksum | cut -d' ' -f1)
PORT ?= 5000
# At a time: networks of `make parallel`, files of `make test`.
WORKERS ?= 2
SEED ?= 0
# For `make wheels`: the other machine's Python and platform, and what it lacks.
BOX_PYTHON ?= 3.12
BOX_PLATFORMS ?= manylinux2014_x86_64 manylinux_2_28_x86_64
BOX_PACKAGES ?= robustness captum pydantic pydantic-core annotated-types typing-inspection typing-extensions

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup repro parallel networks validate verify study show report compare record merge results transition test slow fuzz check bench ui wheels clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

# The stamp is written last, after everything has been imported once: an interrupted set-up leaves none, and is done again
# from the start.
$(STAMP): requirements.txt requirements-dev.txt
	@ls .venv/.complete-* >/dev/null 2>&1 || rm -rf .venv
	@rm -f .venv/.complete-*
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11; say make PYTHON=python3.12, or the like"; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo "set-up: creating .venv"; rm -rf .venv; $(PYTHON) -m venv .venv; }
	@echo "set-up: installing requirements (a few minutes, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	@$(BIN)/python -m pip check --disable-pip-version-check > .venv/pip-check.log || { cat .venv/pip-check.log; exit 1; }
	@$(BIN)/python -W ignore -c 'import torch, torchvision, captum, robustness, mlflow, dvc, pandas, matplotlib, pytest'
	@touch $@

setup: $(STAMP)  ## create .venv and install what is pinned in requirements*.txt

parallel: networks repro  ## as repro, but WORKERS=2 networks at a time, each with its share of the cores

# What is committed is named by kind, not by network: DVC writes dvc.lock anew for each name.
networks: validate
	@dvc repro prepare
	@stages=$$(python -m stages.forecast --names) && [ -z "$$stages" ] || \
		{ python scripts/sweep.py --workers $(WORKERS) --only $$stages && \
		dvc commit --quiet --force $$(printf '%s\n' $$stages | cut -d@ -f1 | sort -u); }

verify: setup  ## hold outputs and DVC's cache against their checksums; what is damaged is removed, to be made anew
	@python -m stages.verify

validate: setup  ## check params.yaml as a whole
	@python -m stages.validate

repro: validate  ## run the study that params.yaml describes, as far as it is out of date
	@python -m stages.forecast || test $$? -ne 3  # 3: DVC cannot work in this folder, and why
	@dvc repro
	@python -m stages.track
	@echo
	@echo "report:      $(CURDIR)/reports/index.html"
	@echo "experiments: make show (dvc and the rest: source .venv/bin/activate)"
	@echo "MLflow UI:   make ui, then open http://127.0.0.1:$(PORT)"

study: setup  ## make a study active: make study NAME=cifar10 (it becomes params.yaml; `dvc repro` runs it)
	@test -f studies/$(NAME).yaml || { echo "error: NAME=$(NAME): known are $(basename $(notdir $(wildcard studies/*.yaml)))"; exit 2; }
	@for file in studies/*.yaml; do cmp -s $$file params.yaml && known=1; done; \
		[ -n "$$known$(FORCE)" ] || git diff --quiet HEAD -- params.yaml 2>/dev/null || \
		{ echo "error: params.yaml has changes of yours that are not committed; commit them, or say FORCE=1"; exit 2; }
	@cp studies/$(NAME).yaml params.yaml
	@python -m stages.validate

show: setup  ## the experiments in one narrow table: make show SORT=clean.robust
	@python -m stages.show $(if $(SORT),--sort $(SORT))

report: setup  ## figures as PDF and tables for LaTeX in reports/paper, from the rows of the present results
	@python -m stages.paper

compare: setup  ## revisions or experiments side by side in reports/compare.html: make compare REVS="main exp-abc"
	@python -m stages.compare $(REVS)

record: setup  ## keep the present results of a study in metrics/<study>/, to be committed
	@dvc status -q || { echo "error: the results are not those of params.yaml; make repro first"; exit 3; }
	@python -m stages.record $(if $(PART),--part $(PART))

merge: setup  ## one study of its parts (make record PART=<name>): make merge NAME=cifar10
	@python -m stages.merge $(NAME)

results: setup  ## write the tables of README.md, docs/results.md and docs/cue.md anew, from what is recorded under metrics/
	@python -m stages.results

transition: setup  ## where networks stop using the cue: make transition STUDIES="shapes_cue4 shapes_cue8 shapes_cue16"
	@python -m stages.transition $(STUDIES)

test: setup  ## the whole test suite, WORKERS=2 files at a time
	@OMP_NUM_THREADS=1 python -m pytest -q -n $(WORKERS) --dist loadfile --durations=15

slow: setup  ## the tests that take minutes each
	@python -m pytest -q -m slow

fuzz: setup  ## random damage to params.yaml, data and checkpoints, some ten minutes each (SEED=0)
	@for file in tests/unit/test_*_fuzz.py; do \
		EPSILENS_FUZZ_EXAMPLES=20000 python -m pytest -q $$file --hypothesis-profile=long --hypothesis-seed=$(SEED) || exit 1; done

check: setup  ## lint, format and types
	@ruff check .
	@ruff format --check .
	@pyright

bench: setup  ## one table and one JSON line for each claim about speed
	@for file in benchmarks/*.py; do echo "== $$file"; python "$$file" || exit 1; done

ui: setup  ## MLflow on 127.0.0.1 (PORT=5000)
	@mlflow server --host 127.0.0.1 --port $(PORT) --workers 1 --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}"

wheels: setup  ## in .wheels, packages for a machine without an index (BOX_PYTHON=3.12, BOX_PACKAGES='...')
	@rm -rf .wheels && mkdir .wheels
	@python -m pip list --format=freeze --disable-pip-version-check > .wheels/versions.txt
	@python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest .wheels \
		--constraint .wheels/versions.txt --python-version $(BOX_PYTHON) $(BOX_PLATFORMS:%=--platform %) $(BOX_PACKAGES)
	@echo "there: python -m venv --system-site-packages .venv && .venv/bin/python -m pip install --no-index --no-deps .wheels/*.whl"

clean:  ## remove outputs and set-up; DVC's cache stays
	@rm -rf .venv data/prepared models results reports .checkpoints
