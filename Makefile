# What this repository can do, from nothing but Python >= 3.10. Everything is installed into .venv.
#
#   make demo    train a small CNN on real digits, dump its IR, ship it, run it without the compiler
#   make test    the test suite
#   make fuzz    random graphs, compiled and compared (docs/reliability.md)
#   make lint    ruff, mypy --strict, the import law
#   make bench   the benchmarks, side by side with other frameworks (quickly: ARGS=--quick)
#   make scaling time per element, compile time per node, memory over what is alive (docs/performance.md)
#   make clean   remove what these commands made

PYTHON ?= python3
VENV ?= .venv
BENCH_VENV ?= .venv-bench
EXTRAS ?= test,demo
WORKERS ?= 2
ARGS ?=

BIN := $(VENV)/bin
comma := ,
empty :=
space := $(empty) $(empty)

# mypy names modules after folders: through a link they are right, whatever the clone is called.
TYPED := $(shell sed -n 's/^files = //p' setup.cfg | tr -d ,)

# One stamp per set of extras, so that a second run installs nothing and needs no network.
installed = $(VENV)/.installed-$(subst $(comma),-,$(subst $(space),,$(1)))

.PHONY: help test fuzz demo lint bench scaling clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

test: $(call installed,$(EXTRAS))
	$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

fuzz: $(call installed,$(EXTRAS))
	$(BIN)/python -m tests.fuzz $(ARGS)

demo: $(call installed,demo)
	$(BIN)/python -m graphwright demo $(ARGS)

lint: $(call installed,$(EXTRAS))
	$(BIN)/ruff check
	mkdir -p build/type-check && ln -sfn ../.. build/type-check/graphwright
	$(BIN)/mypy $(addprefix build/type-check/graphwright/,$(TYPED))
	$(BIN)/lint-imports

# The peers are gigabytes, and pin packages of ours: they have an environment of their own.
bench: $(call installed,$(EXTRAS)) $(BENCH_VENV)/.installed
	$(BIN)/python -m benchmarks.run --python-peers $(BENCH_VENV)/bin/python $(ARGS)

scaling: $(call installed,$(EXTRAS))
	$(BIN)/python -m benchmarks.scaling $(ARGS)

clean:
	rm -rf $(VENV) $(BENCH_VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.ready:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Graphwright needs Python 3.10 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=23.2' 'setuptools>=68' wheel
	touch $@

$(VENV)/.installed-%: setup.cfg pyproject.toml $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[$(subst -,$(comma),$*)]'
	touch $@

$(BENCH_VENV)/.installed: benchmarks/requirements.txt
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/requirements.txt
	touch $@
