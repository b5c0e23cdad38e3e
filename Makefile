# `make help` lists the targets. Set on the command line, for example `make test PYTHON=python3.12`:
PYTHON ?= python3
# Extras that `make setup` installs.
EXTRAS ?= dev,bench,contrib,dmc,render,text
# An index of PyTorch builds. Without a GPU, https://download.pytorch.org/whl/cpu saves gigabytes.
TORCH_INDEX ?=
# More arguments for pytest, for example `make test PYTEST_ARGS="-k feedback"`.
PYTEST_ARGS ?=
# `make demo FULL=1` also trains on the true reward, for comparison.
FULL ?=

VENV := .venv
STAMP := $(VENV)/prefenvs-setup
CONSTRAINTS := constraints.txt constraints-torch.txt
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check

# One thread a process: the parallelism is in the processes.
export OMP_NUM_THREADS ?= 1

# Without a screen MuJoCo draws through EGL or OSMesa, where either is installed. Looked up only by targets that use it.
define FIND_GL
import ctypes.util, sys
names = {"egl": "EGL", "osmesa": "OSMesa"} if sys.platform == "linux" else {}
print(next((gl for gl, library in names.items() if ctypes.util.find_library(library)), ""))
endef
export FIND_GL
HEADLESS = if [ -z "$$MUJOCO_GL$$DISPLAY" ]; then gl=$$($(PY) -c "$$FIND_GL"); \
	if [ -n "$$gl" ]; then export MUJOCO_GL=$$gl; fi; fi

# Everything that an environment depends on. It is written into the environment last, so a half-made one has no stamp.
define IDENTITY
import sys
print("python", sys.version, "in", sys.base_prefix)
endef
export IDENTITY
WANTED = { $(PYTHON) -c "$$IDENTITY"; printf '%s\n' "at $(CURDIR)" "extras $(EXTRAS)" "torch from $(TORCH_INDEX)"; \
	cat pyproject.toml $(CONSTRAINTS); }

define HAS_TORCH
import re, sys
try:
    import torch
except Exception:
    sys.exit(1)
sys.exit(tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) < (2, 8))
endef
export HAS_TORCH

.DEFAULT_GOAL := help
.PHONY: help setup demo studies bench-sbx bench-imitation bench-shimmy bench-trl test test-slow check fmt clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## Make .venv with all that is needed; at once if it is up to date
	@set -e; \
	if $(WANTED) | cmp -s - $(STAMP); then exit 0; fi; \
	echo "Making $(VENV): about 2 GB, some minutes the first time."; \
	rm -rf $(VENV); \
	if $(PYTHON) -c "$$HAS_TORCH"; then \
		echo "Using the torch that $(PYTHON) already has."; \
		$(PYTHON) -m venv --system-site-packages $(VENV); \
		constraints="-c constraints.txt"; \
	else \
		$(PYTHON) -m venv $(VENV); \
		constraints="-c constraints.txt -c constraints-torch.txt"; \
		if [ -n "$(TORCH_INDEX)" ]; then \
			$(PIP) --no-deps --index-url "$(TORCH_INDEX)" -c constraints-torch.txt torch; \
		fi; \
	fi; \
	$(PIP) $$constraints -e ".[$(EXTRAS)]"; \
	$(WANTED) > $(STAMP).part; \
	mv $(STAMP).part $(STAMP)

demo: setup ## Learn a MuJoCo task from preferences, a few minutes on two cores; FULL=1 adds the true-reward run
	@$(HEADLESS); $(PY) -m prefenvs.cli demo $(if $(FULL),--full)

studies: setup ## Run every study at full scale and make docs/studies; ends with an error if a claim does not hold
	$(PY) -m prefenvs.cli study all --scale full --jobs 2 --record

bench-sbx: ## Make .venv-sbx, in which benchmarks run SBX: JAX is no dependency of the suite
	$(PYTHON) -m venv .venv-sbx
	.venv-sbx/bin/python -m pip install --disable-pip-version-check -c constraints.txt -c constraints-torch.txt \
		sbx-rl==0.28.0 jax==0.10.2 gymnasium mujoco imageio packaging $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)")

bench-imitation: ## Make .venv-imitation, in which benchmarks run imitation: it needs an old Gymnasium
	$(PYTHON) -m venv .venv-imitation
	.venv-imitation/bin/python -m pip install --disable-pip-version-check -c constraints-torch.txt \
		imitation==1.0.1 "numpy<2" torch $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)")

bench-shimmy: ## Make .venv-shimmy, in which benchmarks step DMControl through Shimmy
	$(PYTHON) -m venv .venv-shimmy
	.venv-shimmy/bin/python -m pip install --disable-pip-version-check -c constraints.txt \
		shimmy==2.0.1 dm_control gymnasium mujoco imageio packaging numpy

bench-trl: ## Make .venv-trl, in which a benchmark runs TRL, no dependency of the suite
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/python -m pip install --disable-pip-version-check -c constraints.txt -c constraints-torch.txt \
		trl==1.16.0 torch $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)")

test: setup ## Run the default tests
	$(PY) -m pytest -n 2 --durations=25 $(PYTEST_ARGS)

test-slow: setup ## Run the tests marked slow
	$(PY) -m pytest -n 2 --durations=25 -m "slow and not gpu" $(PYTEST_ARGS)

check: setup ## Check format, lint, types, import directions and spelling
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m pytest -q tests/test_imports.py -k direction
	$(PY) -m codespell_lib

fmt: setup ## Format the code and mend what ruff can
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

clean: ## Remove the environment and the caches; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
