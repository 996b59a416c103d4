# Everything rests on `make setup`, which is a no-op where nothing changed.
#
#   make demo     a real Airflow runs the example DAG on a local Modal control plane (KEEP=1 leaves it up,
#                 ISOLATION=gvisor for Modal's sandbox, BARE=1 for images over a minimal Debian)
#   make check    style, types, the direction of imports, the prose, sizes, and the documentation's links
#   make prose    the prose beside its limits (LIST=docs for the places in some files)
#   make test     every test, with real parts
#   make test-oldest-sdk   the most telling contract tests with the oldest SDK that is supported
#   make test-celery   tasks on Celery and on Modal in one Airflow, with a Redis
#   make test-gvisor   tests in gVisor, Modal's sandbox (SHORT=1 for some, GVISOR_TESTS=tests/contract for others,
#                 BARE=1 for those with images over a minimal Debian)
#   make test-every-option   acceptance tests with another value than the default for every option that a task can read
#   make matrix   the tests that depend on Airflow, on every Airflow that is supported (AIRFLOW="3.0 3.2" for some)
#   make test-ui  the tests of the views in Airflow's UI, in a browser, on some Airflows (AIRFLOW="3.1 3.2")
#   make durability   kill the local control plane KILLS times (300) under load and look what is missing
#   make chaos    every cell of the matrix of fault and moment, on a real Airflow (SEED=7, TESTS='-k plane_killed')
#   make soak     SOAK_TASKS (2000) real tasks with faults at random (SEED=7)
#   make ui       build the views of Airflow's UI from frontend/ (needs node 20.19 or newer), and test them
#   make ui-pictures   take the pictures of docs/ui.md (needs chromium)
#   make wheel    build dist/modalflow-<version>-py3-none-any.whl, which docs/install.md installs
#   make docs     generate the pages and tables that are made from the code
#   make site     the documentation as a site, in build/site
#   make bench    how fast the local control plane is here (BENCH="--runs 5")
#   make bench-executor   what the executor costs, beside the naive design (BENCH=--quick)
#   make bench-logs   how old the lines of a log are, and what a long one costs
#   make bench-worker   what a task costs on a worker, beside LocalExecutor (BENCH="--runs 3", ISOLATION=gvisor)
#   make bench-sandboxes   what a worker costs in gVisor, Modal's sandbox, beside Linux (BENCH="--runs 3")
#   make bench-cold-starts   cold starts in gVisor, with and without a memory snapshot (BENCH="--runs 3")
#   make bench-ui   what answers of the UI's API take with 10,000 rows
#   make bench-ui-page   how long Modal's page takes in a browser, beside a page of Airflow's own (needs chromium)
#   make bench-relay   requests to the Execution API over a relay, beside direct ones
#   make bench-relay-tasks   what the relay adds to a no-op task
#   make bench-relay-heartbeats   heartbeats of 500 tasks over a relay
#   make bench-relay-burst   200 real tasks at once over a relay, and 100 that read a large XCom (BENCH="--way tunnel")
#   make bench-burst   what 200 tasks at once do to an API server on a loaded machine (BENCH="--tasks 48 --load 0")
#   make constraints   resolve the dependencies anew

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PRECIOUS: .venv-airflow-%/.setup-done
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
BARE ?=
# Debian's Python is older than this one by some patch releases. So an environment whose packages are to be installed
# over it has those for the first one.
VENV := .venv$(if $(BARE),-bare)
SERIES = "$$('$(PYTHON)' -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
BIN := $(VENV)/bin
TOOLS := .tools
STAMP := $(VENV)/.setup-done
OLDEST := .venv-oldest
CELERY := .venv-celery
KEEP ?=
SHORT ?=
ISOLATION ?=
KILLS ?= 300
SOAK_TASKS ?= 2000
SEED ?=
TESTS ?=
# Half of the tests wait for an Airflow: two at a time keep two cores busy.
WORKERS ?= 2
AIRFLOW ?= 3.0 3.1 3.2 3.3
BENCH ?=

.PHONY: setup check prose test test-oldest-sdk test-celery test-gvisor test-every-option test-ui matrix durability chaos soak demo ui ui-pictures wheel docs site bench bench-executor bench-worker bench-sandboxes bench-cold-starts bench-logs bench-burst bench-ui bench-ui-page bench-relay bench-relay-tasks bench-relay-heartbeats bench-relay-burst constraints clean

setup: $(STAMP)

# `sync` removes what the constraints no longer name; hashes are checked for every file. The project itself is built
# by the pinned build backend in the same environment, which is why it comes last and without isolation.
$(STAMP): pyproject.toml constraints/dev.txt constraints/uv.txt scripts/bootstrap-uv
	uv=$$(scripts/bootstrap-uv '$(PYTHON)' '$(TOOLS)/uv')
	[ -x $(BIN)/python ] || "$$uv" venv -q --python '$(PYTHON)' $(VENV)
	"$$uv" pip sync -q --python $(BIN)/python --require-hashes --compile-bytecode constraints/dev.txt \
		$(if $(BARE),--python-version $(SERIES).0)
	"$$uv" pip install -q --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

# The result is committed, so that everything but this needs Python alone. docs/decisions/ui-views.md.
ui:
	cd frontend
	npm ci --no-audit --no-fund
	npm run build
	npm test

ui-pictures: $(STAMP)
	$(BIN)/python -m tests.browser.pictures docs/images

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.figures --check
	$(BIN)/python -m scripts.prose
	$(BIN)/python -m scripts.ui_sources --check
	@$(MAKE) --no-print-directory site

prose: $(STAMP)
	@$(BIN)/python -m scripts.prose $(if $(LIST),--list $(LIST))

test: $(STAMP)
	$(BIN)/pytest --integration -n $(WORKERS) $(TESTS)

# Containers run with the same SDK. SUBSET=tests/contract runs all of them: some four minutes.
SUBSET ?= $(addprefix tests/contract/test_,auth.py dicts.py queues.py functions.py apps.py) \
	tests/unit/emulator/test_definition_fields.py

test-oldest-sdk: $(OLDEST)/.setup-done
	$(OLDEST)/bin/pytest $(SUBSET) $(TESTS)

$(OLDEST)/.setup-done: pyproject.toml constraints/oldest-sdk.txt constraints/uv.txt scripts/bootstrap-uv
	uv=$$(scripts/bootstrap-uv '$(PYTHON)' '$(TOOLS)/uv')
	[ -x $(OLDEST)/bin/python ] || "$$uv" venv -q --python '$(PYTHON)' $(OLDEST)
	"$$uv" pip sync -q --python $(OLDEST)/bin/python --require-hashes --compile-bytecode constraints/oldest-sdk.txt
	"$$uv" pip install -q --python $(OLDEST)/bin/python --no-deps --no-build-isolation --editable .
	touch $@

# With Airflow's provider of the CeleryExecutor, whose packages nothing else of the project needs.
test-celery: $(CELERY)/.setup-done
	redis=$$(command -v redis-server || scripts/install-redis '$(TOOLS)')
	MODALFLOW_TEST_REDIS="$$redis" $(CELERY)/bin/pytest --integration tests/celery $(TESTS)

$(CELERY)/.setup-done: pyproject.toml constraints/celery.txt constraints/uv.txt scripts/bootstrap-uv
	uv=$$(scripts/bootstrap-uv '$(PYTHON)' '$(TOOLS)/uv')
	[ -x $(CELERY)/bin/python ] || "$$uv" venv -q --python '$(PYTHON)' $(CELERY)
	"$$uv" pip sync -q --python $(CELERY)/bin/python --require-hashes --compile-bytecode constraints/celery.txt
	"$$uv" pip install -q --python $(CELERY)/bin/python --no-deps --no-build-isolation --editable .
	touch $@

# Without a test in gVisor, this succeeds only if this machine cannot fetch `runsc` and PATH has none, or if it does not
# allow namespaces. Tests of the first list have containers in gVisor; those of the second one run in it themselves.
GVISOR_TESTS ?= @tests/gvisor/$(if $(BARE),bare,$(if $(SHORT),short,long)).txt
GVISOR_INSIDE ?= $(if $(filter %long.txt %short.txt,$(GVISOR_TESTS)),tests/integration/test_zygote.py $(if $(SHORT),,tests/unit/worker tests/unit/support))
# The root file system below all images: nothing, or a minimal Debian with this Python's minor version.
BARE_DEBIAN = scripts/bare-debian '$(TOOLS)/debian' $(SERIES)
# Each control plane installs some 170 packages anew, but they are fetched once.
PIP_CACHE = $(abspath $(TOOLS))/pip-cache

test-gvisor: $(STAMP)
	status=0
	runsc=$$(command -v runsc || scripts/install-runsc '$(TOOLS)') || status=$$?
	[ $$status != 0 ] || $(BIN)/python -m tests.gvisor || status=$$?
	base=; [ $$status != 0 ] || [ -z '$(BARE)' ] || base=$$($(BARE_DEBIAN)) || status=$$?
	if [ $$status = 3 ]; then echo "No test ran in gVisor: see the reason above."; exit 0; fi
	[ $$status = 0 ] || exit $$status
	runsc=$$(realpath "$$runsc")
	export MODALFLOW_LOCAL_ISOLATION=gvisor MODALFLOW_LOCAL_RUNSC="$$runsc" PATH="$$(dirname "$$runsc"):$$PATH"
	[ -z "$$base" ] || { mkdir -p '$(PIP_CACHE)'; export MODALFLOW_LOCAL_BASE="$$base" PIP_CACHE_DIR='$(PIP_CACHE)'; }
	$(BIN)/pytest --integration --timeout 300 -n $(WORKERS) $(GVISOR_TESTS) $(TESTS)
	[ -z '$(GVISOR_INSIDE)' ] || scripts/inside-gvisor "$$runsc" $(BIN)/pytest --integration $(GVISOR_INSIDE)

# The variable counts for tests/acceptance alone.
test-every-option: $(STAMP)
	MODALFLOW_EVERY_OPTION=1 $(BIN)/pytest --integration tests/acceptance -m matrix $(TESTS)

matrix: $(STAMP) $(patsubst %,.venv-airflow-%/.setup-done,$(filter-out 3.3,$(AIRFLOW)))
	@$(BIN)/python -m tests.matrix $(AIRFLOW)

.venv-airflow-%/.setup-done: pyproject.toml constraints/airflow-%.txt constraints/uv.txt scripts/bootstrap-uv
	uv=$$(scripts/bootstrap-uv '$(PYTHON)' '$(TOOLS)/uv')
	venv=$(@D)
	[ -x $$venv/bin/python ] || "$$uv" venv -q --python '$(PYTHON)' $$venv
	"$$uv" pip sync -q --python $$venv/bin/python --require-hashes --compile-bytecode constraints/airflow-$*.txt
	"$$uv" pip install -q --python $$venv/bin/python --no-deps --no-build-isolation --editable .
	touch $@

# The newest one is that of the checkout itself. Playwright is not in the constraints of the others.
test-ui: $(STAMP) $(patsubst %,.venv-airflow-%/.browser-done,$(filter-out 3.3,$(AIRFLOW)))
	for minor in $(AIRFLOW); do
		venv=.venv-airflow-$$minor; [ $$minor != 3.3 ] || venv=$(VENV)
		echo "=== Airflow $$minor"
		"$$venv/bin/pytest" --integration tests/acceptance/test_ui.py tests/browser $(TESTS)
	done

.venv-airflow-%/.browser-done: .venv-airflow-%/.setup-done constraints/dev.txt
	uv=$$(scripts/bootstrap-uv '$(PYTHON)' '$(TOOLS)/uv')
	sed -nE '/^(axe-playwright-python|playwright)==/,/[^\\]$$/p' constraints/dev.txt > $(@D)/browser.txt
	"$$uv" pip install -q --python $(@D)/bin/python --no-deps --require-hashes -r $(@D)/browser.txt
	touch $@

durability: $(STAMP)
	@$(BIN)/python -m tests.durability --kills $(KILLS) $(if $(SEED),--seed $(SEED))

chaos: $(STAMP)
	CHAOS=all CHAOS_SEED=$(or $(SEED),0) $(BIN)/pytest tests/chaos $(TESTS)

soak: $(STAMP)
	@$(BIN)/python -m tests.chaos.soak --tasks $(SOAK_TASKS) $(if $(SEED),--seed $(SEED))

demo: $(STAMP)
	@runsc=; [ '$(ISOLATION)' != gvisor ] || runsc=$$(command -v runsc || scripts/install-runsc '$(TOOLS)')
	base=; [ -z '$(BARE)' ] || base=$$($(BARE_DEBIAN))
	[ -z "$$base" ] || { mkdir -p '$(PIP_CACHE)'; export MODALFLOW_LOCAL_BASE="$$base" PIP_CACHE_DIR='$(PIP_CACHE)'; }
	$(BIN)/modalflow demo $(if $(KEEP),--keep) $(if $(ISOLATION),--isolation $(ISOLATION)) $${runsc:+--runsc "$$runsc"} \
		$(if $(BARE),--timeout 1200)

# By the pinned build backend, from this checkout. One wheel is left, so that dist/modalflow-*.whl names it.
wheel: $(STAMP)
	rm -f dist/modalflow-*.whl
	$(BIN)/python -m build --wheel --no-isolation --outdir dist . > /dev/null
	ls dist/modalflow-*.whl

docs: $(STAMP)
	$(BIN)/python -m scripts.module_tables ARCHITECTURE.md
	$(BIN)/python -m modalflow.emulator.coverage > docs/local-control-plane-rpcs.md
	$(BIN)/python -m modalflow.emulator.definitions.page > docs/local-control-plane-options.md
	$(BIN)/python -m modalflow.operations.options_page > docs/configuration.md
	$(BIN)/python -m modalflow.operations.host_settings_page > docs/host-settings.md
	$(BIN)/python -m modalflow.reasons docs/lost-work.md
	$(BIN)/python -m modalflow.airflow_compat.replaced docs/upstream-notes.md
	$(BIN)/python -m modalflow.executor.reporting.call_diagram ARCHITECTURE.md
	$(BIN)/python -m modalflow.executor.reporting.metrics > docs/metrics.md

# The pages lie there as in the repository. Messages without colours, which would be one sequence for each character.
site: $(STAMP)
	@rm -rf build/pages build/site
	mkdir -p build/pages
	git ls-files -co --exclude-standard '*.md' 'docs/images/*.png' | xargs cp --parents -t build/pages
	$(BIN)/zensical build --strict --clean -f mkdocs.yml 2>&1 | sed 's/\x1b\[[0-9;]*m//g'
	$(BIN)/python -m scripts.check_site build/site

bench: $(STAMP)
	@$(BIN)/python -m benchmarks.local_control_plane $(BENCH)

bench-executor: $(STAMP)
	@$(BIN)/python -m benchmarks.executor $(BENCH)

bench-logs: $(STAMP)
	@$(BIN)/python -m benchmarks.logs

bench-worker: $(STAMP)
	@runsc=; [ '$(ISOLATION)' != gvisor ] || runsc=$$(command -v runsc || scripts/install-runsc '$(TOOLS)')
	$(BIN)/python -m benchmarks.worker $(if $(ISOLATION),--isolation $(ISOLATION)) $${runsc:+--runsc "$$runsc"} $(BENCH)

bench-sandboxes: $(STAMP)
	@runsc=$$(command -v runsc || scripts/install-runsc '$(TOOLS)')
	$(BIN)/python -m benchmarks.sandboxes --runsc "$$runsc" $(BENCH)

bench-cold-starts: $(STAMP)
	@runsc=$$(command -v runsc || scripts/install-runsc '$(TOOLS)')
	$(BIN)/python -m benchmarks.cold_starts --runsc "$$runsc" $(BENCH)

bench-ui: $(STAMP)
	@$(BIN)/python -m benchmarks.ui $(BENCH)

bench-ui-page: $(STAMP)
	@$(BIN)/python -m benchmarks.ui_page $(BENCH)

bench-burst: $(STAMP)
	@$(BIN)/python -m benchmarks.burst $(BENCH)

bench-relay: $(STAMP)
	@$(BIN)/python -m benchmarks.relay $(BENCH)

bench-relay-tasks: $(STAMP)
	@$(BIN)/python -m benchmarks.relay_tasks $(BENCH)

bench-relay-heartbeats: $(STAMP)
	@$(BIN)/python -m benchmarks.relay_heartbeats $(BENCH)

bench-relay-burst: $(STAMP)
	@$(BIN)/python -m benchmarks.relay_burst $(BENCH)

# Names, versions and hashes only: an index address would tie every reader to one mirror.
constraints:
	uv=$$(scripts/bootstrap-uv '$(PYTHON)' '$(TOOLS)/uv')
	compile() { "$$uv" pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command 'make constraints' $(UPGRADE) "$$@"; }
	echo uv | compile - -o constraints/uv.txt
	compile --extra demo pyproject.toml -o constraints/demo.txt
	compile --extra demo --group dev -c constraints/demo.txt pyproject.toml -o constraints/dev.txt
	oldest=$$(sed -nE 's/^ *"modal>=([0-9.]+)".*/\1/p' pyproject.toml)
	# As dev.txt but for the SDK and for protobuf, which the SDK holds back.
	sed -E '/^(modal|protobuf)==/,/[^\\]$$/d' constraints/dev.txt > constraints/rest.tmp
	echo "modal==$$oldest" | compile --extra demo --group dev -c constraints/rest.tmp pyproject.toml - -o constraints/oldest-sdk.txt
	rm constraints/rest.tmp
	echo apache-airflow-providers-celery | compile --extra demo --group test -c constraints/dev.txt pyproject.toml - -o constraints/celery.txt
	scripts/resolve-airflows "$$uv"
	! grep -nE '://|^--|^-[a-z]' constraints/*.txt

clean:
	rm -rf .venv .venv-bare $(OLDEST) $(CELERY) .venv-airflow-* .matrix $(TOOLS) .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests examples -name __pycache__ -prune -exec rm -rf {} +

.ONESHELL:
