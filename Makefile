# Every target sets up what it needs in .venv; python3 and a network connection are enough.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test lint bench bench-quick gpu clean

demo: $(VENV)/.examples
	$(RUN) examples/photo_filters.py --output demo
	$(RUN) examples/digits_cnn.py --output demo
	$(RUN) examples/deblur.py --output demo

test: $(VENV)/.dev
	$(RUN) -m pytest -n auto

lint: $(VENV)/.dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(VENV)/.bench
	$(RUN) -m bench

bench-quick: $(VENV)/.bench
	$(RUN) -m bench --quick

# On a machine with an NVIDIA GPU; PyPI's PyTorch brings cuDNN. CUDA=cuda12 for an older driver.
CUDA ?= cuda13
gpu: $(VENV)/.bench $(VENV)/.$(CUDA)
	$(RUN) -m bench.gpu --json gpu.json --markdown gpu.md --png gpu.png

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip

# One stamp for each optional group of pyproject.toml.
$(VENV)/.%: pyproject.toml | $(VENV)/bin/python
	$(RUN) -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) demo .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
