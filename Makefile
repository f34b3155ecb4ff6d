# The commands of this checkout; each makes the environment first if it is not there. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help environment quickstart test test-full soak bench check clean

help:
	@echo "make quickstart   train ContextLM and its GPT baseline on this machine, from raw text to a report"
	@echo "make test         the test suite (15 minutes on 2 cores at most)"
	@echo "make test-full    every test, the long ones too"
	@echo "make soak         200 runs with a fault each: killed, damaged, out of disk (20 minutes on 2 cores, less on more)"
	@echo "make bench        training speed on CPU beside plain PyTorch; fails where a target is missed (10 minutes)"
	@echo "make check        ruff and mypy: style, plain mistakes, types"
	@echo "make environment  only the environment, .venv/ (PYTHON=/path/to/python3 names the interpreter)"
	@echo "make clean        remove caches and what the quickstart and --laptop made; .venv/ and other runs stay"
	@echo "Pass options to the quickstart, to pytest, the soak or the benchmark with ARGS: make test ARGS='-k causality'"

environment:
	@bash environment/bootstrap.sh

quickstart: environment
	@.venv/bin/python examples/quickstart/run.py $(ARGS)

test: environment
	@.venv/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not full" $(ARGS)

test-full: environment
	@.venv/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

soak: environment
	@.venv/bin/python -m tests.faults.soak $(ARGS)

bench: environment
	@.venv/bin/python benchmarks/speed.py $(ARGS)

check: environment
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/python -m mypy

clean:
	rm -rf site runs/quickstart runs/laptop .pytest_cache .ruff_cache .mypy_cache .hypothesis build *.egg-info
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
