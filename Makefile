# Every target that people and CI call. `make` alone lists them.
SHELL := /usr/bin/env bash
.DEFAULT_GOAL := help

PY := .venv/bin/python
PROMPT ?= a red circle on a blue background
PORT ?= 8080
BACKEND ?= embedded
JOBS ?= 1000
SEED ?= 1
PYTEST_ARGS ?=
BENCHES ?= bench.overhead
export PROMPT

# BACKEND=azure runs the same commands through the Azure adapters, on the emulators of this folder.
ifeq ($(BACKEND),azure)
  EXTRAS := azure
  ON_BACKEND := env DARKROOM_QUEUE_URL=servicebus://localhost \
    DARKROOM_JOBSTORE_URL=aztables://devstoreaccount1 \
    DARKROOM_IMAGESTORE_URL=azblob://devstoreaccount1/images \
    $(PY) -m emulators.azure --free-ports --config emulators/Config.json --
else ifeq ($(BACKEND),embedded)
  EXTRAS := run
  DEMO_DATA := --data-dir .cache/demo
else
  $(error BACKEND is $(BACKEND); there are embedded and azure)
endif

.PHONY: help setup demo up chaos test lint fix openapi bench images schema scan clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup:  ## Install everything into .venv; nothing to do while it is up to date
	@.ci/setup all

demo:  ## One picture: make demo PROMPT="a blue square on a yellow background" [BACKEND=azure]
	@started=$$(date +%s) && .ci/setup $(EXTRAS) && \
	export DARKROOM_LOG_LEVEL=$${DARKROOM_LOG_LEVEL:-error} && \
	$(ON_BACKEND) $(PY) .ci/demo.py $(DEMO_DATA) \
	  --install-seconds $$(($$(date +%s) - started)) -- "$$PROMPT"

up:  ## Serve on this machine until Ctrl-C: make up PORT=8080 [BACKEND=azure]
	@.ci/setup $(EXTRAS)
	@exec $(ON_BACKEND) $(PY) -m cli up --port $(PORT)

chaos: setup  ## Break everything, count every job: make chaos JOBS=1000 SEED=1 BACKEND=embedded
	@OMP_NUM_THREADS=1 $(PY) -m bench.chaos --jobs $(JOBS) --seed $(SEED) --backend $(BACKEND)

test: setup  ## Run the tests: make test PYTEST_ARGS="tests/api -x"
	@OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

lint: setup  ## Style, types, import contracts, docs against code; writes nothing
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-cache
	$(PY) .ci/reference.py --check
	$(PY) -m api.openapi --check
	OMP_NUM_THREADS=1 $(PY) -m pytest -q tests/packaging/test_docs.py

fix: setup  ## Repair style, the generated tables in docs/, and k8s/rendered
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(PY) .ci/reference.py --write
	.ci/rendered --write

openapi: setup  ## Write openapi.json from the API's code
	$(PY) -m api.openapi --write

bench: setup  ## Measure; each script prints a table and one line of JSON
	@for script in $(BENCHES); do \
		echo "== $$script"; OMP_NUM_THREADS=1 $(PY) -m $$script || exit 1; \
	done

schema: setup  ## The whole schemathesis run, 3,000 cases and more: some minutes
	@OMP_NUM_THREADS=1 $(PY) -m tests.api.schema_runs

scan:  ## Scan charts, manifests and Dockerfiles for unsafe settings; installs checkov at first
	@.ci/scan

images:  ## Build both images here: Debian, root, buildah, runc, debootstrap (.ci/images says more)
	@.ci/images all

clean:  ## Remove caches, builds and demo data; .venv stays
	rm -rf .cache build dist demo.png .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
