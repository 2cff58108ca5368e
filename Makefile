# `make` lists the targets. Everything runs in .venv, made on first use; PYTHON=... chooses its interpreter.

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench lock clean

READY := .venv/.ready

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## create or update .venv from requirements.lock (Python 3.11 to 3.13)

$(READY): setup.sh pyproject.toml requirements.lock
	./setup.sh
	@touch $@

demo: setup  ## train a small policy on the shipped demonstrations, roll it out, write a report
	.venv/bin/python train.py --config-name=quickstart

test: setup  ## run the whole test suite
	.venv/bin/pytest

lint: setup  ## check style and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

bench: setup  ## run every benchmark in benchmarks/, each against its baseline in the same process
	.venv/bin/python benchmarks/data_loading.py
	.venv/bin/python benchmarks/sampling.py
	.venv/bin/python benchmarks/train_step.py
	.venv/bin/python benchmarks/data_parallel.py
	.venv/bin/python benchmarks/rollout.py --episodes 8 --max-steps 48
	.venv/bin/python benchmarks/image_loading.py
	.venv/bin/python benchmarks/checkpoints.py
	.venv/bin/python benchmarks/checkpoint_saving.py
	.venv/bin/python benchmarks/serving.py
	.venv/bin/python benchmarks/cameras.py
	.venv/bin/python benchmarks/robot.py --seconds 10 --rounds 2

lock:  ## write requirements.lock anew from pyproject.toml
	./setup.sh lock

clean:  ## remove .venv and every cache; data and outputs stay
	rm -rf .venv .uv .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find $(wildcard diffusion_policy tests benchmarks) -name __pycache__ -prune -exec rm -rf {} +
