# Everything works with only python3 and pip on the machine: the first target that needs it
# fetches uv, Python 3.10 and all packages into this folder.
.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow lint format bench docs packaged pins clean

UV_VERSION := 0.13.9
VENV := .venv
PY := $(VENV)/bin/python

# The machine's own uv if it runs here and is recent enough to know dependency groups.
UV := $(shell uv pip install --help 2>/dev/null | grep -q -e --group && echo uv || echo .tools/bin/uv)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(VENV)/.stamp ## the environment: .venv with every extra, installed editable

demo: $(VENV)/.stamp ## train, compile, run on Lava and verify; results in demo/
	$(VENV)/bin/stformer demo -o demo

test: $(VENV)/.stamp ## the tests, without the slow ones
	$(PY) -m pytest -m "not slow"

test-slow: $(VENV)/.stamp ## the slow tests: training, packaging, long Lava runs
	$(PY) -m pytest -m slow

lint: $(VENV)/.stamp ## ruff, mypy --strict, pyright, shellcheck
	$(VENV)/bin/shellcheck .ci/run deploy/lab.sh
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/pyright

format: $(VENV)/.stamp ## what ruff can repair by itself
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

bench: $(VENV)/.stamp ## accuracy of digits and event-digits, three seeds; benchmarks/ has more
	$(PY) benchmarks/accuracy.py

docs: $(VENV)/.stamp ## the documentation as a site, in site/
	$(PY) -m sphinx -W --keep-going -q -b html docs site

packaged: demo ## replace the packaged model by the one that the demo has just proven
	cp demo/digits.stf demo/digits-samples.npz stformer/packaged/

pins: | $(filter .tools/%,$(UV)) ## write constraints/*.txt anew; UPGRADE=--upgrade takes the newest
	$(UV) pip compile --quiet --no-header --no-annotate --no-emit-index-url --python-version 3.10 \
		--all-extras --group dev $(UPGRADE) -o constraints/py310.txt pyproject.toml
	$(UV) pip compile --quiet --no-header --no-annotate --no-emit-index-url --python-version 3.11 \
		--extra train --extra plot --group test --group peers $(UPGRADE) -o constraints/py311.txt pyproject.toml

clean: ## remove all that these targets made, the environment too
	rm -rf .ci-work .tools $(VENV) build dist demo site *.egg-info .coverage
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.stamp: pyproject.toml constraints/py310.txt | $(filter .tools/%,$(UV))
	test -x $(PY) || $(UV) venv --python 3.10 $(VENV)
	$(UV) pip install --quiet --python $(PY) --constraint constraints/py310.txt \
		--editable ".[all]" --group dev
	touch $@

# A pyenv without Python 3.10 refuses python3 in this folder; the system's own does then.
.tools/bin/uv:
	python3 -m venv .tools || PYENV_VERSION=system python3 -m venv .tools
	.tools/bin/pip install --quiet "uv==$(UV_VERSION)"
