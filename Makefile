# `make demo` and `make test` do all the set-up they need; PYTHON picks the interpreter (3.11 or later).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PACKAGE := __init__.py errors.py core tokenization conversion pt tf cli
PYTEST := $(BIN)/python -m pytest

.PHONY: help install demo test test-full test-peers lint format oracle bench bench-full bench-gpu bench-train bench-memory \
  bench-lm-head bench-convert bench-int8 clean

help:
	@echo 'make install    the environment alone, in $(VENV)'
	@echo 'make demo       the main job on real text, results in isobert-demo/'
	@echo 'make test       the tests'
	@echo 'make test-full  the tests and their slower continuation'
	@echo 'make test-peers checkpoints of isobert opened by transformers 4.57.6, in .peers, and the reverse; its Trainer; peft'
	@echo 'make lint       ruff, mypy, import-linter'
	@echo 'make format     let ruff rewrite the code'
	@echo 'make oracle     compute the oracle fixtures anew with transformers 4.57.6, in .peers'
	@echo 'make bench      what is to be reached, beside transformers 5 and 4.57.6, in .peers-5 and .peers; BENCH holds options'
	@echo 'make bench-full all cases with all sides, some hours; BENCH holds options'
	@echo 'make bench-gpu  the models on a GPU, beside transformers 5; BENCH holds options'
	@echo 'make bench-train  whole fine-tuning runs, beside the same; BENCH holds options'
	@echo 'make bench-memory  creating, saving and opening a full-size RemBERT, beside the same; BENCH holds options'
	@echo 'make bench-lm-head  a training step of the part of RemBERT that scores words, beside the same; BENCH holds options'
	@echo 'make bench-convert  converting a full-size RemBERT, beside a copy of the file and the same; BENCH holds options'
	@echo 'make bench-int8  8-bit integers, beside ONNX Runtime and torchao; BENCH holds options'
	@echo 'make clean      remove everything that make created'

install: $(INSTALLED)

# Made anew only when what it is made from changes, so a second make installs nothing.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "isobert needs Python 3.11 or later; $(PYTHON) is not. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo 'Installing into $(VENV): a few minutes, about 3 GB.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/isobert demo --output isobert-demo

test: $(INSTALLED)
	$(PYTEST) -n 2 -m 'not slow and not peers'

test-full: $(INSTALLED)
	$(PYTEST) -n 2 -m 'not peers'

test-peers: $(INSTALLED) .peers/.installed
	$(PYTEST) -m peers tests/peers

# mypy names modules by folder, and a clone's folder may be called anything: links give it the package's name.
lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/types/isobert && ln -sfn $(addprefix ../../../,$(PACKAGE)) build/types/isobert
	cd build/types && MYPYPATH=. ../../$(BIN)/mypy --config-file ../../pyproject.toml -p isobert
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The peer has an environment of its own; the tests read what it computed and never need it.
oracle: .peers/.installed
	TF_USE_LEGACY_KERAS=1 PYTHONPATH=tests .peers/bin/python tests/oracle/make_fixtures.py
	TF_USE_LEGACY_KERAS=1 PYTHONPATH=tests .peers/bin/python tests/oracle/make_h5.py
	.peers/bin/python tests/oracle/make_parameter_orders.py
	.peers/bin/python tests/tokenization/make_oracle.py

.peers/.installed:
	$(PYTHON) -m venv .peers
	.peers/bin/python -m pip install --quiet --disable-pip-version-check \
	  torch==2.13.0 transformers==4.57.6 tensorflow-cpu==2.21.0 tf-keras==2.21.0 sentencepiece protobuf \
	  accelerate==1.15.0 peft==0.21.2 h5py rich typer
	@touch $@

# On an idle machine, with 16 GB of free memory. BENCH='--subjects convbert --rounds 3' asks for fewer models; docs/benchmarks.md
# tells what is measured, and its figures are written anew.
bench: $(INSTALLED) .peers/.installed .peers-5/.installed
	$(BIN)/python benchmarks/text.py --subjects 'fast WordPiece, short' 'slow WordPiece, short' 'slow RemBERT, short'
	$(BIN)/python benchmarks/loading.py --families rembert --frameworks pt
	$(BIN)/python benchmarks/bench.py --short $(BENCH)

bench-full: $(INSTALLED) .peers/.installed .peers-5/.installed
	$(BIN)/python benchmarks/text.py
	$(BIN)/python benchmarks/loading.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/bench.py $(BENCH)

# PyTorch's builds for the GPU are not what `make` installs: put them into .venv and .peers-5.
bench-gpu: $(INSTALLED) .peers-5/.installed
	$(BIN)/python benchmarks/bench.py --gpu $(BENCH)

bench-train: $(INSTALLED) .peers/.installed .peers-5/.installed
	$(BIN)/python benchmarks/training.py $(BENCH)
	$(BIN)/python benchmarks/bench.py --page

# Full-size RemBERT, one process at a time: 16 GB of free memory, and 5 GB of disk in the folder of temporary files.
bench-memory: $(INSTALLED) .peers/.installed .peers-5/.installed
	$(BIN)/python benchmarks/memory.py --json benchmarks/results/memory.json $(BENCH)
	$(BIN)/python benchmarks/bench.py --page

# Full-size tables in three processes at once: 16 GB of free memory.
bench-lm-head: $(INSTALLED) .peers/.installed .peers-5/.installed
	$(BIN)/python benchmarks/lm_head.py --json benchmarks/results/lm_head.json $(BENCH)
	$(BIN)/python benchmarks/bench.py --page

# Full size again: 5 GB of free memory for the peer, and 8 GB of disk in the folder of temporary files.
bench-convert: $(INSTALLED) .peers/.installed
	$(BIN)/python benchmarks/convert.py --json benchmarks/results/convert.json $(BENCH)
	$(BIN)/python benchmarks/bench.py --page

bench-int8: $(INSTALLED) .peers-5/.installed
	$(BIN)/python benchmarks/bench.py --int8 $(BENCH)

.peers-5/.installed:
	$(PYTHON) -m venv .peers-5
	.peers-5/bin/python -m pip install --quiet --disable-pip-version-check 'transformers>=5,<6' torch==2.13.0 accelerate==1.15.0 \
	  onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.31.1 torchao==0.18.0
	@touch $@

clean:
	rm -rf $(VENV) .peers .peers-5 build dist isobert-demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
