# `make help` lists the verbs. Everything runs from .venv, which the first verb that needs it makes.
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2
STAMP := .venv/.installed

.DEFAULT_GOAL := help
# The paper's protocols in small, in the order of its tables and figures; those in CURVES are drawn as well.
STUDIES := finetune compute adam_sgd pos_embed datasize_models scaling pooling_time attention vtab
CURVES := compute datasize_models scaling pooling_time

.PHONY: help install reproduce-table reproduce-paper curve claims test test-slow bench bench-data bench-stats lint clean clean-runs

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

install: $(STAMP) ## make .venv with the tested versions

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "torch==2.13.0" "setuptools>=77" wheel
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

reproduce-table: $(STAMP) ## the position ablation: mean and interval over seeds, beside the paper's Table 8
	@$(BIN)/vitexp sweep sweeps/pos_embed.yaml --workers $(WORKERS)
	@$(BIN)/vitexp table sweeps/pos_embed.yaml

reproduce-paper: $(STAMP) ## every protocol of the paper in small: about 100 minutes on 2 cores, goes on where it was stopped
	@$(BIN)/vitexp fit --config experiments/pretrain_tiny.yaml
	@$(BIN)/vitexp fit --config experiments/masked_tiny.yaml
	@for study in $(STUDIES); do \
	  $(BIN)/vitexp sweep sweeps/$$study.yaml --workers $(WORKERS) && $(BIN)/vitexp table sweeps/$$study.yaml || exit; done
	@for study in $(CURVES); do $(BIN)/vitexp curve sweeps/$$study.yaml || exit; done
	@$(BIN)/vitexp fewshot runs/pretrain_tiny/last/checkpoints/last.ckpt --data shards/digits --image-size 16

curve: $(STAMP) ## accuracy against data size
	@$(BIN)/vitexp sweep sweeps/datasize.yaml --workers $(WORKERS)
	@$(BIN)/vitexp curve sweeps/datasize.yaml

claims: $(STAMP) ## what the runs at hand say about each claim of the paper
	@$(BIN)/vitexp claims

test: $(STAMP) ## the suite: some 5 minutes on 2 cores, no network, no GPU
	@$(BIN)/python -m pytest -q -n auto

test-slow: $(STAMP) ## the long tests: resume after kill, two ranks, fuzzing, the wheel
	@$(BIN)/python -m pytest -q -m slow

bench: $(STAMP) ## steps, the framework and a study beside their floors, peers and goals
	@$(BIN)/vitexp bench --pos-embed none 1d 2d relative --compile
	@$(BIN)/python bench/overhead.py
	@$(BIN)/python bench/study.py

bench-data: $(STAMP) ## the input beside its peers: ratios in one run (DATA=folder or tar of photographs)
	@$(BIN)/python bench/data.py $(DATA)

bench-stats: $(STAMP) ## how often verdicts err and intervals cover, on simulated studies: about 40 minutes on 2 cores
	@OMP_NUM_THREADS=1 $(BIN)/python bench/rates.py
	@OMP_NUM_THREADS=1 $(BIN)/python bench/campaigns.py
	@OMP_NUM_THREADS=1 $(BIN)/python bench/widths.py
	@OMP_NUM_THREADS=1 $(BIN)/python bench/trained.py

lint: $(STAMP) ## formatting, floors, types
	@$(BIN)/ruff check src tests bench examples
	@$(BIN)/ruff format --check src tests bench examples
	@$(BIN)/lint-imports
	@$(BIN)/mypy

clean: ## remove the caches of the tools; runs, results, shards and .venv stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

clean-runs: ## delete runs, results and shards, after a question (CONFIRM=yes answers it)
	@du -shc runs results shards 2>/dev/null || true
	@answer="$(CONFIRM)"; \
	if [ -z "$$answer" ] && [ -t 0 ]; then printf 'Delete all of this? Type yes: '; read -r answer; fi; \
	if [ "$$answer" != yes ]; then echo "nothing deleted; answer yes, or give CONFIRM=yes"; exit 1; fi
	rm -rf runs results shards
