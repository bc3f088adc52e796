VENV ?= .venv## the environment that all targets use; setup makes it
PYTHON ?= python3
RUN := $(VENV)/bin/python -m lcg_lightning
INSTALL := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Two threads that wait for work by sleeping share a busy machine better than two that spin.
export OMP_WAIT_POLICY ?= PASSIVE
# apt-get that gives up soon where there is no network.
APT := DEBIAN_FRONTEND=noninteractive timeout 300 apt-get -qq -o APT::Update::Error-Mode=any -o Acquire::Retries=0 \
	-o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this list
	@grep -hE '^[a-zA-Z_-]+ ?(\?=|:).*##' $(MAKEFILE_LIST) | sed -E 's/^([a-zA-Z_-]+) ?(\?=|:)[^#]*## */\1|/' \
		| awk -F'|' '{ printf "  %-11s %s\n", $$1, $$2 }'

$(VENV)/.done: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --no-compile --editable '.[dev]'
	@# pip compiles on one core; templates in packages need not be Python
	@$(VENV)/bin/python -m compileall -qq --workers 0 $(VENV)/lib || true
	@touch $@

.PHONY: setup
setup: $(VENV)/.done ## make the environment and install everything into it

.PHONY: demo
demo: setup ## SynthFaces from renders to leaderboard in runs/demo, 2 minutes on two cores
	$(VENV)/bin/python -m benchmarks.demo

.PHONY: studio
studio: setup ## edit faces in the browser; runs the demo first if it is not there
	test -e runs/demo/leaderboard.json || $(MAKE) demo
	$(RUN) studio

.PHONY: benchmark
benchmark: setup ## all methods on all tasks, into benchmarks/results; 50 minutes on two cores, resumes
	$(VENV)/bin/python -m benchmarks.benchmark

.PHONY: bench
bench: setup ## speed beside the floor and the peers, into benchmarks/results/speed.*; needs an idle machine
	$(INSTALL) --editable '.[bench]'
	$(VENV)/bin/python -m benchmarks.speed

.PHONY: leaderboard
leaderboard: setup ## the benchmark's pages once more, from the records in runs/benchmark
	$(RUN) leaderboard runs/benchmark/test --out benchmarks/results/test
	$(RUN) leaderboard runs/benchmark/search --out benchmarks/results/search --pictures false

.PHONY: browser
browser: ## Debian's chromium for the tests in a browser: installed where root has apt-get, else those tests are skipped
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null \
		|| { [ "$$(id -u)" = 0 ] && $(APT) update && $(APT) install --yes --no-install-recommends chromium chromium-driver; } \
		>/dev/null 2>&1 || echo "no chromium, and none could be installed: tests in a browser are skipped"

.PHONY: docs
docs: setup ## the documentation site into runs/site
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --quiet
	@echo "Open runs/site/index.html, or search it with make docs-serve."

.PHONY: docs-serve
docs-serve: setup ## the site on 127.0.0.1:8000, with search; follows changes of its files
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs serve

.PHONY: test
test: setup ## ruff and mypy, then all tests, a process for each core
	@$(MAKE) --jobs 2 --no-print-directory lint browser
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto --dist loadfile

.PHONY: lint
lint: setup ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

.PHONY: zoo
zoo: setup ## train the shipped networks again: hours on two cores, minutes on a GPU
	for name in factors attributes identity attributes-2 identity-2 mapping synthesis encoder generator finish; do \
		$(RUN) fit --config configs/zoo/$$name.yaml || exit 1; \
	done
	$(RUN) export-zoo --out runs/zoo/export
	cp runs/zoo/export/* lcg_lightning/zoo/weights/

.PHONY: clean
clean: ## remove everything that runs made
	rm -rf runs
