# EncDL's commands. `make help` lists them; ARGS="…" goes on to the program.

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
ARGS ?=
RUNS ?= runs
PORT ?= 5000
READER ?=
DATA ?= embedded
MINUTES ?= 30
DATA_DIR ?= data
EVALUATED ?= embedded pneumoniamnist brain_tumor acdc
export NO_ALBUMENTATIONS_UPDATE = 1
export NO_MKDOCS_2_WARNING = 1
export MLFLOW_DISABLE_TELEMETRY = true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION = false

BIN = $(VENV)/bin
READY = $(VENV)/.installed

CLASSIFIER_DATA = embedded, brain_tumor, pneumoniamnist or another name of MedMNIST's, mednist, \
the path of a folder of images by class, or that of an .npz file

.DEFAULT_GOAL := help
.PHONY: help setup train-encryptor train-thesis train-cipher-classifier train-cipher-segmenter ciphertext-readers functional-keys evaluate audit mlflow-ui bench bench-serve test test-slow soak lint docs lock sbom dist format clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-24s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nVariables, as in `make setup PYTHON=python3.12`:\n'
	@printf '  %-29s %s\n' 'PYTHON=$(PYTHON)' 'the Python that setup makes the environment with, 3.11 or newer' \
	  'VENV=$(VENV)' 'the environment: made if missing, used by every command' \
	  'PIP_ARGS=$(PIP_ARGS)' 'further options of pip in setup, such as another index of packages' \
	  'ARGS=$(ARGS)' "further arguments of a command's program" \
	  'RUNS=$(RUNS)' 'the folder of runs that mlflow-ui shows'

setup: $(READY)  ## make .venv with everything in it (about 3 minutes, 2 GB)

$(READY): constraints.txt pyproject.toml setup.py encdl/utils/compiled.h encdl/ciphers/mask_network.c encdl/ciphers/mask_network_128.h encdl/ciphers/mask_network_avx512.h encdl/keys/coupled_maps.c encdl/ciphers/postprocess/diffusion.c encdl/ciphers/postprocess/interleave.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "EncDL needs Python 3.11 or newer: make PYTHON=python3.11"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "this Python cannot make virtual environments: apt install python3-venv"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing EncDL and what it needs into $(VENV) (about 3 minutes, 2 GB)"
	@$(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@$(BIN)/python -W ignore -c 'import sys; from encdl.ciphers import compiled_ciphers; sys.exit(not compiled_ciphers.available())' || echo "no C compiler, or no processor with SSSE3 or NEON: encryption works, but several times slower (docs/ciphers.md)"
	@touch $@

train-encryptor: $(READY)  ## train the agile cipher on the embedded MRI slices (under 5 minutes on 2 cores)
	@$(BIN)/encdl fit --recipe encryptor $(ARGS)

train-thesis: $(READY)  ## train the baseline of the thesis, same data and budget
	@$(BIN)/encdl fit --recipe encryptor-thesis $(ARGS)

train-cipher-classifier: $(READY)  ## train a classifier on ciphertext (DATA=embedded|brain_tumor|pneumoniamnist|…, DATA_DIR=data)
	@case "$(DATA)" in \
	  embedded) set -- embedded ;; \
	  brain_tumor|pneumoniamnist|mednist) set -- "$(DATA)" --data.init_args.data_dir "$(DATA_DIR)" ;; \
	  *mnist3d) set -- medmnist3d --data.init_args.name "$(DATA)" --data.init_args.data_dir "$(DATA_DIR)" ;; \
	  *mnist) set -- medmnist --data.init_args.name "$(DATA)" --data.init_args.data_dir "$(DATA_DIR)" ;; \
	  *.npz) set -- npz --data.init_args.file "$$(basename "$(DATA)")" --data.init_args.data_dir "$$(dirname "$(DATA)")" ;; \
	  *) test -d "$(DATA)" || { echo "no data $(DATA): give DATA=$(CLASSIFIER_DATA)"; exit 2; }; \
	     set -- folder --data.init_args.folder "$(DATA)" ;; \
	esac; recipe=$$1; shift; $(BIN)/encdl fit --recipe classifier-$$recipe "$$@" $(ARGS)

train-cipher-segmenter: $(READY)  ## train a segmenter on ciphertext (DATA=embedded|acdc|decathlon|hippocampus, DATA_DIR=data)
	@test -f experiments/segmenter-$(DATA).yaml || { echo "no recipe for DATA=$(DATA): there are $(patsubst experiments/segmenter-%.yaml,%,$(wildcard experiments/segmenter-*.yaml))"; exit 2; }
	@$(BIN)/encdl fit --recipe segmenter-$(DATA) $(if $(filter embedded,$(DATA)),,--data.init_args.data_dir $(DATA_DIR)) $(ARGS)

ciphertext-readers: $(READY)  ## compare reading by functional key with plaintext (wants a GPU; DATA_DIR=data)
	@for recipe in readers-pneumoniamnist readers-brain_tumor readers-acdc; do \
	  $(BIN)/encdl experiment ciphertext-readers --recipe $$recipe --data-dir $(DATA_DIR) --rows plaintext functional $(ARGS) || exit; done

functional-keys: $(READY)  ## readers without a key, and attacks on what they are given (hours on a CPU; DATA_DIR=data)
	@for set in pneumoniamnist brain_tumor acdc; do \
	  $(BIN)/encdl experiment functional-keys --recipe functional-$$set --data-dir $(DATA_DIR) $(ARGS) || exit; done

evaluate: $(READY)  ## repair by every cipher beside classical repair, into the records (EVALUATED=embedded, DATA_DIR=data)
	@for data in $(EVALUATED); do \
	  case $$data in embedded) set -- ;; *) set -- --data-dir "$(DATA_DIR)" ;; esac; \
	  $(BIN)/encdl evaluate --recipe evaluate-$$data "$$@" --output experiments/results/evaluate-$$data.json --force $(ARGS) || exit; done

audit: $(READY)  ## attack the shipped cipher: statistics, attacks, a report (half an hour on a core, ARGS=--quick 2 minutes)
	@$(BIN)/encdl audit --recipe audit $(ARGS)

# Without its end MLflow opens as a tool for chat bots, whose pages show no training.
PAGE = http://127.0.0.1:$(PORT)/\#/experiments?workflowType=machine_learning
mlflow-ui: $(READY)  ## look at the runs in a browser (PORT=5000; MLFLOW_TRACKING_URI is honoured)
	@case "$${MLFLOW_TRACKING_URI:-}" in \
	  http://*|https://*) echo "the runs are on a server: open $$MLFLOW_TRACKING_URI in a browser" ;; \
	  *) mkdir -p "$(RUNS)"; echo "the runs will be at $(PAGE)"; exec $(BIN)/mlflow server \
	     --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(abspath $(RUNS))/mlflow.db}" \
	     --default-artifact-root "file://$(abspath $(RUNS))/artifacts" \
	     --host 127.0.0.1 --port $(PORT) --workers 1 $(ARGS) ;; \
	esac

bench: $(READY)  ## time encryption, reading, training, files beside AES-256-GCM (ARGS="--device cuda" on a GPU)
	@$(BIN)/python experiments/bench.py $(ARGS)

bench-serve: $(READY)  ## time a served reader under 4 clients on this machine (READER=checkpoint)
	@$(BIN)/python experiments/bench_serve.py --reader "$(READER)" $(ARGS)

test: $(READY)  ## run the tests (under 10 minutes on 2 cores)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(ARGS)

test-slow: $(READY)  ## run the tests that take minutes: fuzzing, kills, a cluster, a browser
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m slow --timeout=1800 $(ARGS)

soak: $(READY)  ## random runs with random signals, two at a time, and what is left of the files (MINUTES=30)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.soak "$$(mktemp -d)/soak" $(MINUTES) $(ARGS)

lint: $(READY)  ## ruff, mypy --strict, import-linter, and whether pages and records agree
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/encdl results --check

docs: $(READY)  ## build the documentation site into site/, without network
	@$(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html, or, to search, serve it: $(BIN)/python -m http.server --directory site"

lock: $(READY)  ## write requirements.lock anew: every package with its hashes (by uv; run it after constraints.txt changes)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) uv
	@$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11.5 -c constraints.txt \
	  --generate-hashes --no-annotate --no-emit-index-url --quiet --custom-compile-command "make lock" -o requirements.lock

sbom: $(READY)  ## write dist/encdl.cdx.json, the bill of materials (CycloneDX) of requirements.lock
	@$(BIN)/python experiments/sbom.py dist/encdl.cdx.json

dist: $(READY)  ## build a wheel and a source distribution into dist/
	@$(BIN)/python -m pip wheel --disable-pip-version-check $(PIP_ARGS) --no-deps --wheel-dir dist .
	@$(BIN)/python -c 'from setuptools import build_meta; build_meta.build_sdist("dist")' > /dev/null
	@ls dist

format: $(READY)  ## put the code into its form
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove .venv and caches; runs stay
	@rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info encdl/_compiled.*
