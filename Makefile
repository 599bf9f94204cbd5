# Each target sets up what it needs in .venv and can be run first.

.PHONY: help serve test test-docker check format proto clean

help:
	@echo "make serve    run the quickstart application on this machine"
	@echo "make test     run the tests"
	@echo "make test-docker  run the tests that put up clusters of containers"
	@echo "make check    lint, types, import rules, generated code, sizes"
	@echo "make format   format the code and fix what can be fixed"
	@echo "make proto    generate Python from proto/slipknot"
	@echo "make clean    remove .venv and caches"

serve: .venv/.installed
	.venv/bin/python examples/quickstart.py

test: .venv/.installed-dev
	scripts/test

test-docker: .venv/.installed-dev
	scripts/test-docker

check: .venv/.installed-dev
	scripts/check

format: .venv/.installed-dev
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

proto: .venv/.installed-dev
	scripts/gen-proto

clean:
	rm -rf .venv .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

.venv/.installed: pyproject.toml scripts/setup
	scripts/setup
	@touch $@

.venv/.installed-dev: pyproject.toml scripts/setup
	scripts/setup dev
	@touch .venv/.installed $@
