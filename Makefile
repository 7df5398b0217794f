# Two commands do all set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
LOWEST ?= .venv-lowest
GPTQ   ?= .venv-gptq
SPARK  ?= .venv-spark
REMOTE ?= .venv-remote
SITE   ?= .venv-site
BIN    := $(VENV)/bin
STORE  ?= moedb-store

.PHONY: help demo test test-lowest test-gptq test-spark test-remote test-browser lint docs site clean

help:
	@echo "make demo   install, capture the embedded model over IOI prompts, print tables"
	@echo "make test   install, run the tests"
	@echo "make test-lowest   the same with the lowest versions that pyproject.toml allows"
	@echo "make test-gptq   install the extra gptq beside it, run the tests that need gptqmodel"
	@echo "make test-spark   install the extra spark beside it, run the tests that need Spark and Java 17"
	@echo "make test-remote   install the extra s3 and a server of S3, run the tests of object storage"
	@echo "make test-browser   install the extra browser too, run the tests that need Chromium"
	@echo "make lint   install, run ruff, mypy and import-linter"
	@echo "make docs   write the generated pages in docs/ again"
	@echo "make site   install mkdocs beside it, run the notebook, make a site of docs/ in site/"

REMOTE_TESTS := tests/store/reading/places tests/store/copying tests/store/verification/test_buckets.py tests/queries/engines/test_remote_queries.py tests/commands/asking/exploring/test_remote_store.py

# what it is given: folder, constraints, extra
comma := ,
define install
	@$(PYTHON) -c 'import sys; sys.exit("moedb needs Python 3.11 or newer; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check -c $(2) -e '.[$(3),hub]'
	@touch $(1)/.installed
endef

$(VENV)/.installed: pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt,dev)

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	$(call install,$(LOWEST),constraints-lowest.txt,test)

$(GPTQ)/.installed: pyproject.toml constraints-gptq.txt
	$(call install,$(GPTQ),constraints-gptq.txt,test$(comma)gptq)

$(SPARK)/.installed: pyproject.toml constraints.txt
	$(call install,$(SPARK),constraints.txt,test$(comma)spark)

$(REMOTE)/.installed: pyproject.toml constraints-remote.txt
	$(call install,$(REMOTE),constraints-remote.txt,remote)

$(SITE)/.installed: pyproject.toml constraints.txt
	$(call install,$(SITE),constraints.txt,site)

demo: $(VENV)/.installed
	MOEDB_STORE=$(STORE) PATH="$(CURDIR)/$(BIN):$$PATH" sh docs/demo.sh

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

test-lowest: $(LOWEST)/.installed
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n auto --dist loadfile

test-gptq: $(GPTQ)/.installed
	HF_HUB_OFFLINE=1 $(GPTQ)/bin/python -m pytest tests/capture/models/test_gptqmodel.py

test-spark: $(SPARK)/.installed
	OMP_NUM_THREADS=1 MOEDB_EXPECT_SPARK=1 $(SPARK)/bin/python -m pytest tests/queries/engines tests/store/engine/spark

test-remote: $(REMOTE)/.installed
	OMP_NUM_THREADS=1 $(REMOTE)/bin/python -m pytest -n auto --dist loadfile $(REMOTE_TESTS)

test-browser: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	$(BIN)/python -m pytest tests/queries/report/pages/test_browser.py tests/queries/report/pages/test_images_in_browser.py

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

site: $(SITE)/.installed
	OMP_NUM_THREADS=1 NO_MKDOCS_2_WARNING=1 $(SITE)/bin/python -m mkdocs build --quiet

docs: $(VENV)/.installed
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/models.py

clean:
	rm -rf $(VENV) $(LOWEST) $(GPTQ) $(SPARK) $(REMOTE) $(SITE) site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
