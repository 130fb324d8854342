# Two commands set everything up and need nothing but Python 3.11+ and make: `make demo` and `make test`.
# PYTHON=python3.12 picks another Python. The README says how to get PyTorch's CPU build.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test test-fast lint format results parallel prefix-sums babi transformer studies figures adder parallel-adder vectors hardware docs docs-test pdf serve mutants aot aot-versions gpu clean babi-tasks ask
help:
	@echo "make demo       train a looped adder live, test it on up to 100 digits, show what it thinks (about 4 minutes)"
	@echo "make test       lint, types and all tests"
	@echo "make test-fast  the tests without training and packaging"
	@echo "make results    train all seeds and controls anew, and measure them (about an hour)"
	@echo "make parallel   the same for the parallel adder, with its study of depth (about an hour)"
	@echo "make prefix-sums  the second task: 5 seeds and controls on 32 to 1,024 bits (about an hour)"
	@echo "make babi DATA=DIR  the Connection Transformer on task 16 of bAbI: 5 seeds and controls (about 20 minutes)"
	@echo "make transformer  the encoder-decoder: before training, then English to Korean, and what its heads read (about an hour)"
	@echo "make babi-tasks DATA=DIR  the looped block over sentences on all 20 tasks of bAbI, one seed (about an hour)"
	@echo "make ask        the model that answers questions about stories, in English and Korean (about ten minutes)"
	@echo "make studies    train and measure what the studies ask: x0, the gate, loops beyond training, ... (some hours)"
	@echo "make hardware   measure this machine, and memory and times beside what is predicted (two minutes)"
	@echo "make docs       build the site in English and Korean into build/site; build/site/index.html opens without a server"
	@echo "make docs-test  build the site and look at every page of it in a browser (five minutes; needs Chromium and CJK fonts)"
	@echo "make pdf        build the site and print its book in each language, build/site/looplm.pdf and ko/looplm.pdf (needs Chromium)"
	@echo "make serve      show the English site at localhost:8000 while you write; make serve LANGUAGE=ko the Korean one"
	@echo "make mutants    break the code of each clause and see whether its tests notice (a quarter of an hour)"
	@echo "make aot        build the kernels for GPUs that are not here, and hold them to the hardware profiles (a minute)"
	@echo "make gpu        on a machine with a CUDA GPU: test the kernels on it, then measure them (under 8 minutes)"
	@echo "make figures    draw the README's figures from the committed results"

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "LoopLM needs Python 3.11 or newer: PYTHON=python3.11 make ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(INSTALLED)
	$(BIN)/looplm train first-light

test: lint
	$(BIN)/pytest -n 2
	$(BIN)/looplm spec check

test-fast: $(INSTALLED)
	$(BIN)/pytest -n 2 -m "not slow"

lint: $(INSTALLED)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The committed results, from nothing: 5 seeds of the preset and of each control, two at a time.
SEEDS := 0 1 2 3 4
STUDY := runs/study
ADDERS := $(foreach seed,$(SEEDS),$(STUDY)/first-light-$(seed))
CONTROLS := $(foreach control,rope static one-layer,$(foreach seed,$(SEEDS),$(STUDY)/first-light-$(control)-$(seed)))

PARALLEL := $(foreach seed,$(SEEDS),$(STUDY)/parallel-$(seed))

# The adders are measured anew on 2,000 sums a cell; a control's own run, with 200, is enough beside them.
results: $(INSTALLED)
	$(MAKE) -j2 $(ADDERS) $(CONTROLS)
	$(MAKE) -j2 $(ADDERS:=.json)
	rm -f docs/data/first-light.json
	$(BIN)/looplm report $(ADDERS:=.json) $(CONTROLS) --out docs/data/first-light.json

$(ADDERS) $(CONTROLS) $(PARALLEL):
	$(BIN)/looplm train $(patsubst %-$(lastword $(subst -, ,$(@F))),%,$(@F)) \
		--seed $(lastword $(subst -, ,$(@F))) --out $@

$(ADDERS:=.json):
	$(BIN)/looplm eval $(basename $@) --sizes 4 5 6 8 10 12 16 24 32 48 64 100 \
		--n 2000 2000 2000 2000 2000 2000 2000 2000 2000 2000 2000 500 --seed 2 --out $@

# The adder inside the package: chosen on at most 8 digits, then tested once on 12.
SMALL := 1 2 3 4 5 6 7 8
adder: $(INSTALLED)
	$(BIN)/looplm ship adder $(ADDERS) --choice-sizes $(SMALL) --report-sizes 12

# The parallel adder: 5 seeds, measured on 1,000 sums a cell, and how deep it thinks.
parallel: $(INSTALLED)
	$(MAKE) -j2 $(PARALLEL)
	$(MAKE) -j2 $(PARALLEL:=.json)
	rm -f docs/data/parallel.json docs/data/parallel-depth.json
	$(BIN)/looplm report $(PARALLEL:=.json) --out docs/data/parallel.json
	$(BIN)/looplm depth $(PARALLEL) --out docs/data/parallel-depth.json

# The studies: what is trained and measured already, in runs/study, is taken as it is.
STUDIES := x0 gate loops known
studies: $(INSTALLED)
	for study in $(STUDIES); do \
		rm -f docs/data/study-$$study.json; \
		$(BIN)/looplm study $$study --out docs/data/study-$$study.json --figures docs/figures || exit 1; \
	done

parallel-adder: $(INSTALLED)
	$(BIN)/looplm ship parallel-adder $(PARALLEL) --choice-sizes $(SMALL) --report-sizes 12

$(PARALLEL:=.json):
	$(BIN)/looplm eval $(basename $@) --n 1000 --seed 2 --out $@

# The second task: 5 seeds and its controls, measured on 32 to 1,024 bits.
PREFIX := $(foreach seed,$(SEEDS),$(STUDY)/prefix-sums-$(seed))
PREFIX_CONTROLS := $(foreach control,all-scored no-restarts first static,$(STUDY)/prefix-sums-$(control)-0)

PREFIX_FIXED := $(foreach loops,32 48 56 60 62 64 72,$(foreach seed,$(SEEDS),$(STUDY)/prefix-fixed-$(loops)-$(seed).json))

prefix-sums: $(INSTALLED)
	$(MAKE) -j2 $(PREFIX) $(PREFIX_CONTROLS)
	$(MAKE) -j2 $(PREFIX:=.json) $(PREFIX_CONTROLS:=.json) $(PREFIX_FIXED)
	rm -f docs/data/prefix-sums.json docs/data/prefix-sums-fixed.json
	$(BIN)/looplm report $(PREFIX:=.json) $(PREFIX_CONTROLS:=.json) --out docs/data/prefix-sums.json
	$(BIN)/looplm report $(PREFIX_FIXED) --out docs/data/prefix-sums-fixed.json

$(PREFIX) $(PREFIX_CONTROLS):
	$(BIN)/looplm train $(patsubst %-$(lastword $(subst -, ,$(@F))),%,$(@F)) \
		--seed $(lastword $(subst -, ,$(@F))) --out $@

$(PREFIX:=.json):
	$(BIN)/looplm eval $(basename $@) --sizes 32 64 128 256 512 1024 --n 1000 1000 1000 200 200 200 --seed 2 --out $@

$(PREFIX_FIXED): $(STUDY)/prefix-fixed-%.json:
	$(BIN)/looplm eval $(STUDY)/prefix-sums-$(lastword $(subst -, ,$*)) --sizes 64 --n 200 --seed 2 \
		--halting fixed --max-loops $(firstword $(subst -, ,$*)) --out $@

$(PREFIX_CONTROLS:=.json):
	$(BIN)/looplm eval $(basename $@) --sizes 32 64 128 512 --n 200 200 200 50 --seed 2 --out $@

# The translator: 3 seeds, the first shipped; the paper's schedule and size beside it, and what their heads read.
TRANSLATORS := $(foreach seed,0 1 2,$(STUDY)/translator-$(seed))
GRAMMARS := $(STUDY)/grammar-0 $(STUDY)/grammar-1
transformer: $(INSTALLED)
	rm -f docs/data/transformer-start.json
	$(BIN)/looplm measure transformer-start --out docs/data/transformer-start.json
	$(MAKE) -j2 $(TRANSLATORS) $(GRAMMARS) $(STUDY)/grammar-looped-0
	rm -f $(foreach name,translator grammar translator-heads grammar-heads translator-choosing,docs/data/$(name).json)
	$(BIN)/looplm report $(TRANSLATORS) --out docs/data/translator.json
	$(BIN)/looplm report $(GRAMMARS) $(STUDY)/grammar-looped-0 --out docs/data/grammar.json
	$(BIN)/looplm heads $(TRANSLATORS) --out docs/data/translator-heads.json
	$(BIN)/looplm heads $(GRAMMARS) --out docs/data/grammar-heads.json
	$(BIN)/looplm ship translator $(STUDY)/translator-0 --n 2000
	$(BIN)/looplm choosing translator --out docs/data/translator-choosing.json
	$(BIN)/looplm translate "polite today the old teacher did not understand the stories that we wrote" \
		--json > docs/data/translator-sentence.json

$(TRANSLATORS) $(GRAMMARS) $(STUDY)/grammar-looped-0:
	$(BIN)/looplm train $(patsubst %-$(lastword $(subst -, ,$(@F))),%,$(@F)) \
		--seed $(lastword $(subst -, ,$(@F))) --out $@

# The Connection Transformer on task 16 of bAbI, from the official files in the folder or archive DATA.
BABI := $(foreach seed,$(SEEDS),$(STUDY)/babi-16-$(seed))
BABI_CONTROLS := $(foreach control,no-connection frozen pure,$(foreach seed,$(SEEDS),$(STUDY)/babi-16-$(control)-$(seed)))

babi: $(INSTALLED)
	$(MAKE) -j2 $(BABI) $(BABI_CONTROLS)
	rm -f docs/data/babi-16.json
	$(BIN)/looplm controls $(BABI) $(BABI_CONTROLS) --out docs/data/babi-16.json

$(BABI) $(BABI_CONTROLS):
	$(BIN)/looplm train $(patsubst %-$(lastword $(subst -, ,$(@F))),%,$(@F)) --data $(DATA) \
		--seed $(lastword $(subst -, ,$(@F))) --out $@

# One configuration on all twenty tasks; the file has 1,000 questions of task 3, and no larger edition.
TASKS := $(foreach number,1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20,$(STUDY)/babi-looped-task-$(number))

babi-tasks: $(INSTALLED)
	$(MAKE) $(TASKS)
	rm -f docs/data/babi.json
	$(BIN)/looplm controls $(TASKS) --out docs/data/babi.json

$(TASKS): $(STUDY)/babi-looped-task-%:
	$(BIN)/looplm train babi-looped --data $(DATA) --set task.number=$* --set 'evaluation.sizes=[$*]' \
		$(if $(filter 3,$*),--set task.edition=en --set evaluation.problems_per_cell=95) --out $@

ask: $(INSTALLED)
	$(BIN)/looplm train ask --out $(STUDY)/ask
	rm -f docs/data/ask.json
	$(BIN)/looplm report $(STUDY)/ask --out docs/data/ask.json

vectors: $(INSTALLED)
	$(BIN)/looplm conform --write tests/vectors

figures: $(INSTALLED)
	$(BIN)/looplm report docs/data/first-light.json --figure docs/figures/first-light-accuracy.svg
	$(BIN)/looplm trace 68915+62898 --figure docs/figures/first-light-trace.svg
	$(BIN)/looplm plan looplm-256 --profile h200 --figure docs/figures/hardware-loops.svg > /dev/null
	$(BIN)/looplm flow "I love you" --model translator --figure docs/figures/translator-flow.svg > /dev/null
	$(BIN)/looplm trace 99999999+1 --model parallel-adder --figure docs/figures/parallel-trace.svg
	$(BIN)/looplm depth --out docs/data/parallel-depth.json --figure docs/figures/parallel-depth.svg
	for study in $(STUDIES); do \
		$(BIN)/looplm study $$study --summary docs/data/study-$$study.json --figures docs/figures > /dev/null || exit 1; \
	done

# Predicted beside measured memory and times, on this machine; pages and tests read the file.
hardware: $(INSTALLED)
	$(BIN)/looplm bench hardware --out docs/data/hardware.json

# The site. English is built first, because that build empties build/site.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --config-file mkdocs.ko.yml

# Look at the built site in a browser. Playwright is installed here only, and drives the system's Chromium.
BROWSER := $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[browser]"
docs-test: docs
	$(BROWSER)
	$(BIN)/pytest tests/browser

pdf: docs
	$(BROWSER)
	$(BIN)/python docs/build/pdf.py build/site

serve: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --config-file mkdocs$(if $(filter ko,$(LANGUAGE)),.ko).yml

# Break the code of each clause in small ways and see whether its tests notice: docs/data/mutants.md (a quarter of an hour).
mutants: $(INSTALLED)
	$(BIN)/python tests/mutants.py

# Build every kernel for every profile, without a GPU. Triton keeps what it has built in build/triton. Linux only.
aot: $(INSTALLED)
	TRITON_CACHE_DIR=build/triton $(BIN)/python -m looplm_kernels.aot docs/data/builds.json

# The main kernel with the Triton versions that other PyTorch versions require; each lies beside the others, in build/.
OTHER_TRITONS := 3.6.0 3.9.0
aot-versions: $(INSTALLED)
	for version in $(OTHER_TRITONS); do \
		test -d build/triton-$$version || $(BIN)/python -m pip install --quiet --no-deps --target build/triton-$$version triton==$$version; \
		TRITON_CACHE_DIR=build/triton PYTHONPATH=build/triton-$$version \
			$(BIN)/python -m looplm_kernels.aot docs/data/builds.json --only "loop positions" || exit 1; \
	done

# What only a GPU can show, in one go, by the PYTHON that has PyTorch and Triton; nothing is fetched. DRY=1 rehearses on a CPU.
gpu:
	PYTHONPATH=$(CURDIR):$(CURDIR)/kernels:$$PYTHONPATH $(PYTHON) -m looplm.bench.gpu $(if $(DRY),--dry-run)

clean:
	rm -rf $(VENV) build dist *.egg-info
