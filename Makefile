# Tasteloop on one machine. Every target sets up what it needs, once, and says what it does.
PORT    ?= 8080
PROFILE ?= local

VENV := .venv
BIN  := $(VENV)/bin
STAMP := $(VENV)/.stamp

# The environment's own Python where there is one already, else the newest supported one that is here and can make
# environments (Debian and Ubuntu keep that part in a package of its own), unless PY names another. Locks are resolved
# with the lowest: what it can install, the newer ones can. pyproject.toml says what is supported.
PYTHONS := $(BIN)/python python3.13 python3.12 python3.11 python3
LOWEST  := python3.11
USABLE  := import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
ifndef PY
PY := $(firstword $(foreach name,$(PYTHONS),$(shell $(name) -c '$(USABLE)' >/dev/null 2>&1 && echo $(name))))
endif

.DEFAULT_GOAL := help
.PHONY: help setup assets run serve demo-loop test test-cluster test-spark fuzz golden bench bench-loop bench-peers images manifests lint typecheck lock lock-hashes clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Variables: PY=$(PY) (3.11 to 3.13), PROFILE=$(PROFILE) (smoke, local), PORT=$(PORT), JOBS=$(JOBS), TORCH_INDEX=URL"

setup: $(STAMP) ## make the virtual environment and install the locked packages into it

$(STAMP): requirements.lock torch.lock pyproject.toml
	@$(or $(PY),false) -c '$(USABLE)' 2>/dev/null || { printf '%s\n' \
	"setup: no Python 3.11, 3.12 or 3.13 that can make environments here$(and $(PY),: PY=$(PY) is none). Get one:" \
	"  Debian 13, Ubuntu 24.04  apt install python3 python3-venv" \
	"  macOS                    brew install python@3.13" \
	"  anywhere, with uv        uv python install 3.13, then make setup PY=\$$(uv python find 3.13)" \
	"or name another: make setup PY=/path/to/python3.12" >&2; exit 2; }
	@echo "setup: virtual environment $(VENV) with $$($(PY) --version)"
	@$(PY) -m venv $(VENV)
ifdef TORCH_INDEX
	@echo "setup: downloading about 1 GB, 3 GB when installed: requirements.lock, then $$(grep '^torch==' torch.lock) from TORCH_INDEX"
else
	@echo "setup: downloading requirements.lock: about 1 GB, and on Linux 2 GB more for torch's CUDA build (7 GB when installed)"
	@echo "setup: without a GPU: make setup TORCH_INDEX=URL, of the index with CPU builds that PyTorch's installation page names"
endif
	@echo "setup: installing requirements.lock, each file checked against its hash (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	@echo "setup: installing torch"
ifdef TORCH_INDEX
	@$(BIN)/python -m pip install --quiet --no-deps --index-url $(TORCH_INDEX) --requirement torch.lock
else
	@$(BIN)/python -m pip install --quiet --requirement torch.lock
endif
	@echo "setup: installing tasteloop from this directory"
	@$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@
	@echo "setup: done"

assets: $(STAMP)
	@echo "assets: data and weights into the cache, where they are not there yet"
	@$(BIN)/tasteloop data fetch ml-100k rotten-tomatoes clothing-reviews minilm

run: assets ## fetch, validate, fine-tune, evaluate, gate, rehearse and promote
	@$(BIN)/tasteloop run --profile $(PROFILE)

serve: $(STAMP) ## serve the champion on loopback, port PORT
	@$(BIN)/tasteloop serve --port $(PORT)

DEMO := $(abspath $(or $(TASTELOOP_HOME),$(HOME)/.tasteloop))/simulations/demo
demo-loop: assets ## watch the loop: tastes change, the monitor sees it, retrains, gates, promotes (5 to 10 minutes)
	@$(BIN)/tasteloop simulate --shift taste-change --weeks 5 --home $(DEMO)
	@echo "demo-loop: what was decided, newest first"
	@TASTELOOP_HOME=$(DEMO) $(BIN)/tasteloop history
	@TASTELOOP_HOME=$(DEMO) $(BIN)/tasteloop status
	@TASTELOOP_HOME=$(DEMO) $(BIN)/tasteloop report --site $(DEMO)/site

# Files run side by side, JOBS at a time, each with one thread; what measures time or needs the machine for itself is
# marked `alone` and comes last, one after the other.
JOBS ?= 2
PYTEST := HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q
SIDE_BY_SIDE := OMP_NUM_THREADS=1 $(PYTEST) -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=20
test: assets lint typecheck ## everything: linters, types, fast tests, then whole runs and servers
	@echo "test: fast, $(JOBS) files at a time"
	@$(SIDE_BY_SIDE) -m "not slow and not cluster and not alone"
	@echo "test: slow (whole runs, real servers), $(JOBS) files at a time"
	@$(SIDE_BY_SIDE) -m "slow and not cluster and not alone"
	@echo "test: what must run alone"
	@$(PYTEST) --durations=20 -m "alone and not cluster"

test-cluster: $(STAMP) ## images, containers, a Kubernetes API server and a node, where they can be started (docs/cluster.md)
	@$(BIN)/python -m pytest -q --durations=10 -m cluster

test-spark: $(STAMP) ## tests on a real Spark master and worker, where there is Java; installs [spark] into the environment
	@echo "test-spark: pyspark"
	@sed -E -n 's/^([A-Za-z0-9._-]+==[^ ;\\]+).*/\1/p' requirements.lock torch.lock > $(VENV)/constraints.txt
	@$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt --editable ".[spark]"
	@$(BIN)/python -m pytest -q -m slow tests/e2e/runs/test_spark.py

fuzz: $(STAMP) ## the tests that make input at random, for much longer than `make test` does; stop it when you like
	@HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -m fuzz --timeout 0 --hypothesis-profile fuzz

golden: $(STAMP) ## renew tests/golden after a change that is meant; then read its diff
	@TASTELOOP_RENEW_GOLDEN=1 $(BIN)/python -m pytest -q tests/pipelines/graphs/test_golden.py
	@git --no-pager diff --stat -- tests/golden

bench: assets ## the quality benchmark: every protocol and method (docs/benchmarks.md)
	@$(BIN)/tasteloop bench quality

bench-loop: assets ## the loop under every shift, 20 seeds each: hours (docs/monitoring.md)
	@$(BIN)/python -m benchmarks.loop.run

PEERS := .venv-peers
bench-peers: $(PEERS)/.stamp ## the environment of the benchmark's peers, and our measures checked against theirs
	@$(PEERS)/bin/python benchmarks/quality/check_metrics.py

$(PEERS)/.stamp: benchmarks/quality/requirements.lock
	@echo "bench-peers: virtual environment $(PEERS) with $(LOWEST), which its pins need (some minutes the first time)"
	@$(LOWEST) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install --quiet --requirement benchmarks/quality/requirements.lock
	@touch $@

INFRA := .venv-infra
$(INFRA)/.stamp: infra/requirements.lock
	@echo "$(INFRA): tools for images and manifests"
	@$(PY) -m venv $(INFRA)
	@$(INFRA)/bin/python -m pip install --quiet --requirement infra/requirements.lock
	@touch $@

images: $(INFRA)/.stamp ## the steps and serving images from BASE=image@sha256:…, with SBOM and audit (docs/cluster.md)
	@TOOLS=$(INFRA)/bin infra/docker/build.sh $(IMAGES)

manifests: $(INFRA)/.stamp ## render infra/k8s and hold it against Kubernetes' schemas, and the cluster of KUBECONFIG
	@TOOLS=$(INFRA)/bin infra/k8s/validate.sh

lint: $(STAMP) ## ruff and the import contracts
	@echo "lint: ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@echo "lint: import contracts"
	@$(BIN)/lint-imports --no-cache

typecheck: $(STAMP) ## mypy, strict on every package
	@echo "typecheck: mypy"
	@$(BIN)/mypy

lock: ## resolve pyproject.toml anew, with Python 3.11, and write the lock files with hashes
	@PYTHON=$(LOWEST) infra/lock.sh

lock-hashes: ## keep every pin, and write the hashes of the lock files anew
	@PYTHON=$(LOWEST) infra/lock.sh hashes

clean: ## remove the environment and tools' caches (data, models and runs stay)
	rm -rf $(VENV) $(PEERS) $(INFRA) .venv-gpu build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
