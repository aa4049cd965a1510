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

.PHONY: serve test lint type load load-peers docs image glyphs heads ensemble scratch known tasks alphabets adult adult-widths adult-search schools papers http clean

serve: $(SERVE_ENV)/.installed
	@$(SERVE_ENV)/bin/python -c "import socket; socket.create_server(('$(HOST)', $(PORT))).close()" 2>/dev/null || \
	  { echo 'Port $(PORT) of $(HOST) is taken: stop what listens there, or set HANDFUL_PORT.' >&2; exit 1; }
	@$(SERVE_ENV)/bin/handful serve & server=$$!; \
	trap 'kill -TERM $$server 2>/dev/null; wait $$server; exit $$?' INT TERM; \
	until $(SERVE_ENV)/bin/python -c "import urllib.request as u; u.urlopen('$(URL)/health/ready')" 2>/dev/null; do \
	  kill -0 $$server 2>/dev/null || { wait $$server; exit $$?; }; sleep 0.2; done; \
	printf '\nReady. Five drawings as support, one to recognise:\n\n  %s\n\nAPI pages: %s/docs\n\n' \
	  "curl -s $(URL)/v1/models/glyphs/predict -H 'Content-Type: application/json' -d @examples/glyphs/predict.json" \
	  "$(URL)"; \
	wait $$server

# Two at a time, one core each.
test: $(TEST_ENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

lint: $(TEST_ENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: $(TEST_ENV)/.installed
	$(BIN)/mypy

load: $(TEST_ENV)/.installed
	missed=0; \
	$(BIN)/python loadtests/footprint.py || missed=1; \
	$(BIN)/python loadtests/mixing.py || missed=1; \
	$(BIN)/python -m loadtests.load --json load.json --chart load.png || missed=1; \
	$(BIN)/python loadtests/conditioning.py || missed=1; \
	exit $$missed

# Side by side with other servers, each in an environment of its own under .peers/: about 40 minutes on two cores that
# do nothing else, and 2 GB of disk. Needs wrk.
load-peers: $(TEST_ENV)/.installed
	$(BIN)/python -m loadtests.peers --out docs/results/peers

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

# Every way to learn from a support set, as a head on the frozen trunk of `glyphs`: three seeds each, one core a run
# (`make --jobs 2 heads`). Runs of the same settings on a trunk that never saw the selection characters calibrate: one,
# or, where these differ in how sure they are, one for each seed.
HEADS := prototypes matching relation ridge logistic bayes anil meta-sgd context hypernetwork neural-process transformer \
  snail lstm probe
SEEDS := 1 2 3
SELECTION_SEEDS_neural-process := 1 2 3
ONE_CORE := OMP_NUM_THREADS=1 $(TRAIN_ENV) $(BIN)/handful
# Nothing is trained for prototypes: they are `glyphs`, whose own trunk for the selection fitted its table.
TABLE_prototypes := --table bundles/glyphs/1
head_runs = $(foreach seed,$(SEEDS),runs/glyphs-$(1)-$(seed))
selection_runs = $(foreach seed,$(or $(SELECTION_SEEDS_$(1)),1),runs/glyphs-$(1)-selection-$(seed))

runs/glyphs-trunk.pt: | $(TEST_ENV)/.installed
	$(BIN)/handful trunk bundles/glyphs/1 --out $@

runs/trunk-selection/result.json: | $(TEST_ENV)/.installed
	$(TRAIN_ENV) $(BIN)/handful train models/configs/trunk-selection.toml

define HEAD_RUN
runs/glyphs-$(1)-$(2)/result.json: | runs/glyphs-trunk.pt
	$$(ONE_CORE) train models/configs/glyphs-$(1).toml --set seed=$(2) --run runs/glyphs-$(1)-$(2)
endef

define SELECTION_RUN
runs/glyphs-$(1)-selection-$(2)/result.json: | runs/trunk-selection/result.json
	$$(ONE_CORE) train models/configs/glyphs-$(1).toml --set data.train=selection-train --set data.select=selection \
	  --set encoder.weights=runs/trunk-selection/weights.pt --set seed=$(2) --run runs/glyphs-$(1)-selection-$(2)
endef

define HEAD
$$(foreach seed,$$(or $$(SELECTION_SEEDS_$(1)),1),$$(eval $$(call SELECTION_RUN,$(1),$$(seed))))
runs/glyphs-$(1)-selection-1/calibration.json: $$(addsuffix /result.json,$$(call selection_runs,$(1)) $$(call head_runs,$(1)))
	$$(ONE_CORE) calibrate $$(call selection_runs,$(1)) $$(TABLE_$(1)) --into $$(call head_runs,$(1))
bundles/glyphs-$(1)/1: runs/glyphs-$(1)-selection-1/calibration.json
	$$(ONE_CORE) evaluate --quiet $$(call head_runs,$(1))
	$$(BIN)/handful export export/configs/glyphs-$(1).toml --run runs/glyphs-$(1)-1
head-$(1): bundles/glyphs-$(1)/1
endef

$(foreach head,$(HEADS),$(foreach seed,$(SEEDS),$(eval $(call HEAD_RUN,$(head),$(seed)))))
$(foreach head,$(HEADS),$(eval $(call HEAD,$(head))))

heads: $(foreach head,$(HEADS),bundles/glyphs-$(head)/1)
	$(BIN)/handful evaluate $(foreach head,$(HEADS),$(call head_runs,$(head))) \
	  --title 'Heads on one trunk' --markdown docs/results/heads.md

# An ensemble of heads that were trained apart, and its members beside it.
ENSEMBLE := hypernetwork transformer relation
ensemble:
	$(BIN)/handful ensemble $(foreach head,$(ENSEMBLE),runs/glyphs-$(head)-1) --run runs/glyphs-ensemble-1
	$(BIN)/handful ensemble $(foreach head,$(ENSEMBLE),runs/glyphs-$(head)-selection-1) --run runs/glyphs-ensemble-selection
	$(BIN)/handful calibrate runs/glyphs-ensemble-selection --into runs/glyphs-ensemble-1
	$(BIN)/handful evaluate runs/glyphs-ensemble-1 $(foreach head,$(ENSEMBLE),runs/glyphs-$(head)-1) \
	  --title 'An ensemble and its members' --paired 20x1 --markdown docs/results/ensemble.md

# From scratch, one core a run; the plot against the number of training classes needs four runs of one config.
SCRATCH := omniglot-prototypes omniglot-maml omniglot-reptile omniglot-lstm
CLASSES := 60 240 960
scratch: | $(TEST_ENV)/.installed
	for name in $(SCRATCH); do $(ONE_CORE) train models/configs/$$name.toml || exit 1; done
	for classes in $(CLASSES); do $(ONE_CORE) train models/configs/omniglot-prototypes.toml \
	  --set data.classes=$$classes --run runs/omniglot-prototypes-$$classes || exit 1; done
	$(BIN)/handful evaluate $(addprefix runs/,$(SCRATCH)) --title 'From scratch' --markdown docs/results/scratch.md
	$(BIN)/handful plot classes $(foreach classes,$(CLASSES),runs/omniglot-prototypes-$(classes)) \
	  runs/omniglot-prototypes --out docs/results/classes.png

# Alphabets fine-tuned offline, as known tasks of the MAML that `scratch` trains.
known: | $(TEST_ENV)/.installed
	$(ONE_CORE) finetune models/configs/known/alphabets.toml --out runs/known-alphabets
	$(BIN)/handful export export/configs/omniglot-maml.toml --run runs/omniglot-maml --known runs/known-alphabets

# Every bundle of a head, as its users see it: through ONNX Runtime and HTTP.
http: | $(TEST_ENV)/.installed
	$(BIN)/handful evaluate $(foreach head,$(HEADS),--bundle bundles/glyphs-$(head)/1) --markdown docs/results/http.md

# Regression, and labels that people disagree on.
tasks: | $(TEST_ENV)/.installed
	for name in sinusoids-bayes sinusoids-maml jester-bayes; do $(ONE_CORE) train models/configs/$$name.toml || exit 1; done
	for name in sinusoids-bayes sinusoids-maml; do $(ONE_CORE) calibrate runs/$$name || exit 1; done
	for fold in 0 1 2 3 4 5; do $(ONE_CORE) train models/configs/parkinsons-bayes.toml --set data.fold=$$fold \
	  --run runs/parkinsons-bayes-$$fold || exit 1; done
	$(BIN)/handful evaluate runs/sinusoids-bayes runs/sinusoids-maml --title Sinusoids --markdown docs/results/sinusoids.md
	$(BIN)/handful evaluate runs/jester-bayes --title Jester --markdown docs/results/jester.md
	$(BIN)/handful evaluate $(foreach fold,0 1 2 3 4 5,runs/parkinsons-bayes-$(fold)) --title "Parkinson's" \
	  --markdown docs/results/parkinsons.md

# Known tasks: every conditioning with five seeds, and the sharing report. `make --jobs 2 alphabets adult`
CONDITIONINGS := multi-head concatenation addition film mmoe cross-stitch
KNOWN_SEEDS := 1 2 3 4 5
singles_alphabets := alphabets-independent
singles_adult := adult-income adult-hours adult-occupation
runs/known/%/result.json: | $(TEST_ENV)/.installed
	$(ONE_CORE) train models/configs/$(basename $*).toml --set seed=$(patsubst .%,%,$(suffix $*)) --run $(@D)
# The arm that is best on selection rows, with a quarter of its width, half, and twice.
hidden_18 := 64
hidden_37 := 128
hidden_146 := 512
widths_adult := $(foreach width,18 37 146,adult-cross-stitch-w$(width))
runs/known/adult-cross-stitch-w%/result.json: | $(TEST_ENV)/.installed
	$(ONE_CORE) train models/configs/adult-cross-stitch.toml --set seed=$(patsubst .%,%,$(suffix $*)) \
	  --set learner.options.width=$(basename $*) --set 'learner.options.hidden=[$(hidden_$(basename $*))]' --run $(@D)
known_runs = $(foreach seed,$(KNOWN_SEEDS),runs/known/$(1).$(seed))
known_results = $(addsuffix /result.json,$(call known_runs,$(1)))
alphabets: $(foreach name,$(singles_alphabets),$(call known_results,$(name)))
adult-widths: $(foreach name,$(widths_adult),$(call known_results,$(name)))
adult: adult-widths $(foreach name,$(singles_adult),$(call known_results,$(name)))
alphabets adult: %: $(foreach name,$(CONDITIONINGS),$(call known_results,%-$(name)))
	$(ONE_CORE) evaluate $(foreach name,$(CONDITIONINGS),$(call known_runs,$*-$(name))) \
	  --against-single $(foreach name,$(singles_$*),$(call known_runs,$(name))) \
	  $(if $(widths_$*),--widths $(foreach name,$(widths_$*),$(call known_runs,$(name)))) --markdown docs/results/$*.md

# The settings of `adult`: as many trials for each arm and each single task. The best are copied into the configs by hand.
searches := $(foreach name,$(CONDITIONINGS) $(singles_adult:adult-%=%),search-adult-$(name))
.PHONY: $(searches)
adult-search: $(searches)
$(searches): search-adult-%: | $(TEST_ENV)/.installed
	$(ONE_CORE) search models/configs/adult-$*.toml --out runs/search/adult-$*
	mkdir -p docs/results/adult-search && cp runs/search/adult-$*/search.csv docs/results/adult-search/$*.csv

# Described tasks. Of schools a run for each split; the bundle is that of the first.
SPLITS := 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29
runs/schools-%/result.json: | $(TEST_ENV)/.installed
	$(ONE_CORE) train models/configs/schools-described-bayes.toml --set data.split=$* --run $(@D)
schools: $(foreach split,$(SPLITS),runs/schools-$(split)/result.json)
	$(BIN)/handful evaluate $(foreach split,$(SPLITS),runs/schools-$(split)) --title Schools --markdown docs/results/schools.md
	$(BIN)/handful export export/configs/schools.toml --run runs/schools-0

papers: | $(TEST_ENV)/.installed
	$(ONE_CORE) train models/configs/papers-mixed.toml
	$(ONE_CORE) calibrate runs/papers-mixed
	$(ONE_CORE) evaluate runs/papers-mixed --title Papers --markdown docs/results/papers.md
	$(BIN)/handful export export/configs/papers.toml --run runs/papers-mixed

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
