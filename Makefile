# Two verbs do all set-up: `make serve` (runtime only) and `make test` (everything).
PYTHON ?= python3
SERVE_ENV := .venv-serve
TEST_ENV := .venv
BIN := $(TEST_ENV)/bin
HOST := $(or $(HANDFUL_HOST),127.0.0.1)
PORT := $(or $(HANDFUL_PORT),8000)
URL := http://$(HOST):$(PORT)
PIP_FLAGS := --quiet --disable-pip-version-check --constraint constraints.txt
TORCH := torch==2.13.0
PACKAGES := service models export
# glibc's trimming costs training up to half of a step.
TRAIN_ENV := MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1000000000000 MALLOC_TOP_PAD_=268435456

.PHONY: serve test lint type load docs image glyphs heads clean

serve: $(SERVE_ENV)/.installed
	@$(SERVE_ENV)/bin/handful serve & server=$$!; \
	trap 'kill -TERM $$server 2>/dev/null; wait $$server; exit $$?' INT TERM; \
	until $(SERVE_ENV)/bin/python -c "import urllib.request as u; u.urlopen('$(URL)/health/ready')" 2>/dev/null; do \
	  kill -0 $$server 2>/dev/null || { wait $$server; exit $$?; }; sleep 0.2; done; \
	printf '\nReady. Five drawings as support, one to recognise:\n\n  %s\n\nAPI pages: %s/docs\n\n' \
	  "curl -s $(URL)/v1/models/glyphs/predict -H 'Content-Type: application/json' -d @examples/glyphs/predict.json" \
	  "$(URL)"; \
	wait $$server

test: $(TEST_ENV)/.installed
	$(BIN)/python -m pytest

lint: $(TEST_ENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: $(TEST_ENV)/.installed
	$(BIN)/mypy

load: $(TEST_ENV)/.installed
	$(BIN)/python loadtests/footprint.py
	$(BIN)/python loadtests/mixing.py

docs: $(TEST_ENV)/.installed
	$(BIN)/python docs/write_openapi.py
	$(BIN)/python -m pytest tests/docs

image:
	docker build --tag handful .

# The shipped bundle, from the data on: about an hour on two cores.
glyphs: $(TEST_ENV)/.installed
	$(TRAIN_ENV) $(BIN)/handful train models/configs/glyphs-selection.toml
	$(BIN)/handful calibrate runs/glyphs-selection
	$(TRAIN_ENV) $(BIN)/handful train models/configs/glyphs.toml
	$(BIN)/handful evaluate runs/glyphs --markdown docs/results/glyphs.md
	$(BIN)/handful export export/configs/glyphs.toml --run runs/glyphs --calibration runs/glyphs-selection

# The other heads, each trained on the trunk of `runs/glyphs`: a few minutes a head. Their bundles go to
# runs/bundles.
HEADS := ridge logistic matching relation
heads: $(TEST_ENV)/.installed
	for head in $(HEADS); do \
	  $(TRAIN_ENV) $(BIN)/handful train models/configs/glyphs-$$head.toml && \
	  $(BIN)/handful evaluate runs/glyphs-$$head --markdown docs/results/glyphs-$$head.md && \
	  $(BIN)/handful export export/configs/glyphs-$$head.toml --run runs/glyphs-$$head --out runs/bundles || exit 1; done

$(SERVE_ENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('Handful needs Python 3.11 or newer' if sys.version_info < (3, 11) else 0)"
	@echo 'Installing the runtime from the package index, once: about a minute.'
	$(PYTHON) -m venv $(SERVE_ENV)
	$(SERVE_ENV)/bin/pip install $(PIP_FLAGS) --editable '.[cpu]'
	touch $@

# torch comes first and alone, so that no resolver picks another build of it.
$(TEST_ENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit('Handful needs Python 3.11 or newer' if sys.version_info < (3, 11) else 0)"
	@echo 'Installing everything from the package index, once: a few minutes.'
	$(PYTHON) -m venv $(TEST_ENV)
	$(BIN)/pip install $(PIP_FLAGS) $(TORCH)
	$(BIN)/pip install $(PIP_FLAGS) --editable '.[cpu,train,postgres,dev]'
	touch $@

clean:
	rm -rf $(SERVE_ENV) $(TEST_ENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
