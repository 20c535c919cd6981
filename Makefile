# Everything by hand: `make` builds .venv once, `make help` lists the rest.
# A value that you set (METHOD=clipfit SEEDS=1,2) becomes the flag of the same name; what you leave out keeps its default.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
STAMP := $(VENV)/.installed
CACHES := .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist lightning_logs
# One thread a test process: the processes are the parallelism, and numbers do not depend on the number of cores.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest
WORKERS := -n auto --maxprocesses 4 --dist worksteal

flag = $(if $($(1)),--$(2) '$($(1))')
GRID = $(call flag,SUITE,suite) $(call flag,DATASETS,datasets) $(call flag,SEEDS,seeds) $(call flag,SHOTS,shots) \
  $(call flag,PROTOCOL,protocol) $(call flag,BACKBONE,backbone) $(call flag,JOBS,jobs)
GOLDEN = $(wildcard tests/*/make_golden.py */mini/golden.py)
STUDIES = $(patsubst configs/studies/%.yaml,%,$(wildcard configs/studies/*.yaml))

# With PYTHONDONTWRITEBYTECODE set, as in many containers, each process would compile these and what they import.
IMPORTED = clipbench.bench.grid, clipbench.bench.fit, clipbench.report, matplotlib.backends.backend_agg, \
  matplotlib.backends.backend_pdf, ftfy, jsonschema, rich.table, peft

say = { echo "clipbench: $(1)" >&2; exit $(2); }
NO_PYTHON = $(PYTHON) is missing: install Python 3.10 or newer, or name one with PYTHON=/path/to/python3
OLD_PYTHON = $(PYTHON) is too old: Python 3.10 or newer is needed, name one with PYTHON=/path/to/python3
NO_VENV = $(PYTHON) has no module venv with pip: install it (Debian and Ubuntu: apt-get install python3-venv)
NO_UV = uv could not be installed into $(VENV): pip said why above; is there a network?
NO_PACKAGES = the packages of requirements.lock could not be installed: uv said why above; run make again, it goes on from there

.DEFAULT_GOAL := install
.PHONY: install bench study test test-slow check lock golden docs wheel clean help

$(UV):
	@command -v "$(PYTHON)" >/dev/null || $(call say,$(NO_PYTHON),1)
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || $(call say,$(OLD_PYTHON),1)
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || $(call say,$(NO_VENV),1)
	@echo "clipbench: building $(VENV) (about 6 GB with torch; only the first time)"
	@"$(PYTHON)" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv || $(call say,$(NO_UV),1)

# The package holds its version, which the installed metadata repeats.
$(STAMP): pyproject.toml requirements.lock $(wildcard clipbench/__init__.py) | $(UV)
	@$(UV) pip install --python $(BIN)/python -r requirements.lock || $(call say,$(NO_PACKAGES),1)
	@$(UV) pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation -e . || $(call say,$(NO_PACKAGES),1)
	@echo "clipbench: compiling what a bench imports"
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -c 'import $(IMPORTED)'
	@touch $@

install: $(STAMP) ## build .venv (the default)
	@echo "clipbench: ready; try 'make bench METHOD=clipfit', or 'make help'"

bench: $(STAMP) ## the grid and the leaderboard of METHOD= [SUITE= DATASETS= SEEDS= SHOTS= PROTOCOL= BACKBONE= JOBS= ARGS=]
	@$(if $(METHOD),,$(BIN)/clipbench list methods; $(call say,which one? make bench METHOD=<one of these>,2))
	@$(BIN)/clipbench bench --method '$(METHOD)' $(GRID) $(ARGS)

study: $(STAMP) ## a named set of recipes with its table and figure: STUDY= [JOBS= ARGS=]
	@$(if $(filter $(STUDIES),$(STUDY)),,$(call say,which one? make study STUDY=<$(or $(STUDIES),there are none yet)>,2))
	@$(BIN)/clipbench study '$(STUDY)' $(call flag,JOBS,jobs) $(ARGS)

test: $(STAMP) ## the tests, in some minutes [ARGS=]
	@$(PYTEST) $(WORKERS) $(ARGS)

test-slow: $(STAMP) ## the tests that take longer, one after the other [ARGS=]
	@$(PYTEST) -m slow $(ARGS)

check: $(STAMP) ## lint, format, types, schemas, links
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(PYTEST) tests/house/test_files.py

lock: $(UV) ## write requirements.lock anew from pyproject.toml [ARGS=--upgrade]
	@$(UV) pip compile pyproject.toml --quiet --extra dev --universal --python-version 3.10 --no-annotate \
	  --custom-compile-command "make lock" $(ARGS) -o requirements.lock

golden: $(STAMP) ## compute the golden values of the tests anew, or of one recipe [RECIPE=]; look at the diff before you commit it
	@export OMP_NUM_THREADS=1; for script in $(if $(RECIPE),tests/methods/make_golden.py,$(GOLDEN)); do \
	  module=$$(echo "$${script%.py}" | tr / .); echo "$$module"; $(BIN)/python -m "$$module" $(RECIPE) || exit; done

docs: $(STAMP) ## write the generated pages of docs/ anew
	@$(BIN)/python docs/build.py

wheel: $(STAMP) ## build dist/clipbench-*.whl
	@$(BIN)/python -m hatchling build -t wheel

clean: ## remove what make made: .venv, caches, builds; with RUNS=1 results/runs as well
	rm -rf $(VENV) $(CACHES) $(if $(RUNS),results/runs)
	find . -name __pycache__ -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile
