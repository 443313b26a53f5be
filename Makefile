# make demo         group real images and say where the page is; needs python3 and nothing else
# make test         linters, types and all tests, with what they need
# make wheelhouse   everything that both need, as files: copy the folder to a machine without a network
# make clean        remove what these made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt

# A wheelhouse beside this file is used instead of the network.
SOURCE := $(if $(wildcard wheelhouse),--no-index --find-links wheelhouse)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(SOURCE) -c $(CONSTRAINTS)

.PHONY: demo test wheelhouse clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	@$(BIN)/python datasets/photos.py demo/photos --overwrite
	@$(BIN)/python datasets/digits.py demo/digits --overwrite
	$(BIN)/labelengine group demo/photos --out demo/photos-by-light --n-clusters 8 \
	  --image-brightness --image-colorfulness --ambiguity --overwrite
	$(BIN)/labelengine group demo/digits --out demo/digits-by-content --n-clusters 10 --overwrite
	@echo
	@echo "Open these pages in a browser:"
	@echo "  $(CURDIR)/demo/photos-by-light/report.html"
	@echo "  $(CURDIR)/demo/digits-by-content/report.html"

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo "installing labelengine (torch is large: some minutes and 5 GB at the first time) ..."
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml $(CONSTRAINTS) $(VENV)/.installed
	@$(INSTALL) -e '.[test]'
	@touch $@

# Debian's python3 may lack venv: virtualenv does the same, and pip can fetch it without touching the system.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "labelengine needs Python 3.10 or later as $(PYTHON); make PYTHON=python3.12 names another" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { rm -rf $(VENV); \
	  $(PYTHON) -m pip install --quiet --disable-pip-version-check $(SOURCE) --target build/virtualenv virtualenv \
	    >/dev/null 2>&1 && PYTHONPATH=build/virtualenv $(PYTHON) -m virtualenv --quiet $(VENV); } || { rm -rf $(VENV); \
	  echo "$(PYTHON) can make no virtual environment: install its venv (Debian, Ubuntu: apt install python3-venv)" >&2; \
	  exit 1; }

wheelhouse: $(BIN)/python
	$(BIN)/python -m pip download --quiet --disable-pip-version-check -d wheelhouse -c $(CONSTRAINTS) \
	  '.[test]' 'setuptools>=77' wheel pip virtualenv
	@rm -f wheelhouse/labelengine-*
	@echo "wheelhouse/: $$(ls wheelhouse | wc -l) files, $$(du -sh wheelhouse | cut -f1)"

clean:
	rm -rf $(VENV) build demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
