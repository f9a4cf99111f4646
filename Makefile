# Everything here sets itself up: it needs Python 3.12, pip and make, nothing else.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

UV := tools/uv.sh
BIN := .venv/bin
# Two: the tests start processes and clusters of their own.
WORKERS ?= 2
# Extra arguments for pytest or the benchmark runner: make test ARGS="-k fuzzy"
ARGS ?=
# What the demo shows: one pipeline of each modality, and one across rows.
EXAMPLES ?= text dedup images-basic
# Where tests may need an engine, so that no others are imported to find them, unless ARGS names files or folders.
ENGINE_TESTS = $(if $(wildcard $(foreach word,$(ARGS),$(firstword $(subst ::, ,$(word))))),,packages/curator-backends/tests tests)
SOURCES := $(wildcard packages/*/src)

# Some shells forbid writing bytecode; every process of a test or worker would then compile pandas anew.
unexport PYTHONDONTWRITEBYTECODE
# And in such a shell every run that is started by hand, so an environment is compiled when it has changed. COMPILE=no leaves that to
# the first import, which is enough where nothing runs outside of make.
COMPILE ?= yes

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## curate the sample data of examples/ and write a report; installs nothing heavy
	@UV_PROJECT_ENVIRONMENT=.venv-demo $(UV) sync --quiet --no-dev $(addprefix --package curator-,core text image)
	@PATH="$$PWD/.venv-demo/bin:$$PATH" bash examples/demo.sh $(EXAMPLES)

.PHONY: examples
examples: ## run every example that needs no extras
	@$(MAKE) demo EXAMPLES=

.PHONY: sync
sync: ## the light environment in .venv: all packages and the tools, no torch, no ray
	@# inexact: what `make sync-all` added stays
	@$(UV) sync --quiet --inexact --all-packages --group test
	@[ "$(COMPILE)" = no ] || PYTHONWARNINGS=ignore $(BIN)/python tools/compile_bytecode.py

.PHONY: sync-all
sync-all: ## .venv with every extra (6.6 GB, mostly torch with CUDA)
	@$(UV) sync --quiet --all-packages --all-extras --all-groups
	@[ "$(COMPILE)" = no ] || PYTHONWARNINGS=ignore $(BIN)/python tools/compile_bytecode.py

.PHONY: test
test: sync-all ## run all tests with all extras
	@# A test that fails on a busy machine gets a second go; the closing line counts it, and why it failed at the first
	@# is printed, since a race that shows once in a thousand runs is a fault to mend and no reason to test nothing.
	@# Clusters one after the other and alone: they keep two cores busy, so beside other tests both take twice as long.
	@# They come first, since continuous integration runs short steps beside them, while they wait for their processes.
	@$(BIN)/pytest --require-extras -n 0 --timeout 600 --durations 15 --reruns 1 -rR \
		-m "(ray or xenna) and not thorough" $(ARGS) $(ENGINE_TESTS) || [ $$? -eq 5 ]
	@$(BIN)/pytest --require-extras -n $(WORKERS) --dist loadgroup --timeout 600 --durations 15 \
		--reruns 1 -rR -m "not (ray or xenna or thorough)" $(ARGS) || [ $$? -eq 5 ]

.PHONY: test-engines
test-engines: sync-all ## run every test that needs an engine, and all that `make test` leaves out
	@$(BIN)/pytest --require-extras -n 0 --timeout 600 --durations 15 -m "ray or xenna or thorough" $(ARGS)

.PHONY: test-fast
test-fast: sync ## under a minute: run the tests without an engine or model that take less than 0.2 seconds each (mark: slow)
	@# What takes longer has the mark `slow`; a test that lacks it is named at the end of this and of `make test`.
	@$(BIN)/pytest -n $(WORKERS) --dist loadgroup -m "not (slow or ray or xenna or models or dali)" $(ARGS)

.PHONY: isolation
isolation: sync ## run each package's tests with only its own declared dependencies
	@$(BIN)/python tools/isolation.py $(ARGS)

.PHONY: check
check: sync ## format, lint, types, import contracts, version ranges, text
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/mypy $(SOURCES) tools
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/check_siblings.py
	$(BIN)/python tools/check_text.py
	$(BIN)/python tools/stubs.py --check
	$(BIN)/python tools/surface.py --check
	$(BIN)/python tools/draw_architecture.py --check
	$(BIN)/python tools/decision_index.py --check

.PHONY: generate
generate: sync ## renew what is made from the code: stubs, public names, the picture of layers, the index of decisions
	@$(BIN)/python tools/stubs.py
	@$(BIN)/python tools/surface.py
	@$(BIN)/python tools/draw_architecture.py
	@$(BIN)/python tools/decision_index.py

.PHONY: hooks
hooks: ## run `make check` before each commit of this checkout
	@printf '#!/bin/sh\nexec make check\n' > "$$(git rev-parse --git-path hooks)/pre-commit"
	@chmod +x "$$(git rev-parse --git-path hooks)/pre-commit"

.PHONY: format
format: sync ## format the code and mend what lint can mend
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

.PHONY: wheels
wheels: sync ## build every package, install each wheel alone into a fresh environment, import it
	@$(BIN)/python tools/check_wheels.py $(ARGS)

.PHONY: docs-check
docs-check: sync ## run every example of the documentation, with the packages as users get them
	@$(BIN)/python tools/docs_check.py $(ARGS)

.PHONY: bench
bench: sync-all ## run the quick benchmarks and their gates
	@$(BIN)/python tools/bench.py --tag quick $(ARGS)

.PHONY: bench-all
bench-all: sync-all ## run every benchmark of benchmarks/nightly.yaml
	@$(BIN)/python tools/bench.py $(ARGS)

.PHONY: news
news: sync ## show the next release's changelog entry of each package
	@for package in $(notdir $(wildcard packages/*)); do echo "# $$package"; \
		$(BIN)/towncrier build --draft --config towncrier.toml --dir packages/$$package --version next 2>/dev/null; done

.PHONY: ci
ci: ## what continuous integration runs, start to end
	@bash .ci/run

.PHONY: clean
clean: ## remove environments, caches and what runs and builds left
	@rm -rf .venv .venv-demo .uv uv.lock dist build runs .demo .ci/out benchmarks/results benchmarks/.data examples/*/made* examples/*/out
	@find . -type d \( -name __pycache__ -o -name .pytest_cache -o -name .mypy_cache -o -name .ruff_cache \
		-o -name .hypothesis -o -name .import_linter_cache \) -prune -exec rm -rf {} +
