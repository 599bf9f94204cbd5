# Each target sets up what it needs in .venv and can be run first.

.PHONY: help serve test test-docker bench bench-peers bench-growth check compile format proto clean

help:
	@echo "make serve    run the quickstart application on this machine"
	@echo "make test     run the tests"
	@echo "make test-docker  run the tests that put up clusters of containers"
	@echo "make bench    measure slipknot beside bare uvicorn and HAProxy; up to twenty minutes"
	@echo "make bench-peers  the same with Ray Serve, BentoML and LitServe; about an hour"
	@echo "make bench-growth  how slipknot's cost grows with replicas, proxies, connections"
	@echo "make check    lint, types, import rules, generated code, sizes"
	@echo "make compile  compile the modules of the hot path again after an edit; until then they run as Python"
	@echo "make format   format the code and fix what can be fixed"
	@echo "make proto    generate Python from proto/slipknot"
	@echo "make clean    remove .venv and caches"

serve: .venv/.installed
	.venv/bin/python examples/quickstart.py

test: .venv/.installed-dev
	scripts/test

test-docker: .venv/.installed-dev
	scripts/test-docker

bench: .venv/.installed-dev
	-@.venv/bin/python hatch_build.py
	.venv/bin/python -m benchmarks --systems slipknot,floor,haproxy --rounds 3 --seconds 2 --out benchmark-results/bench

bench-peers: .venv/.installed-dev .venv-peers/.installed
	-@.venv/bin/python hatch_build.py
	.venv/bin/python -m benchmarks --systems all --rounds 3 --seconds 2 --out benchmark-results/bench-peers

bench-growth: .venv/.installed-dev
	-@.venv/bin/python hatch_build.py
	.venv/bin/python -m benchmarks --systems slipknot --metrics growth --rounds 1 --out benchmark-results/bench-growth

check: .venv/.installed-dev
	scripts/check

compile: .venv/.installed-dev
	.venv/bin/python hatch_build.py

format: .venv/.installed-dev
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

proto: .venv/.installed-dev
	scripts/gen-proto

clean:
	rm -rf compiled .venv .venv-peers .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

.venv/.installed: pyproject.toml hatch_build.py scripts/setup
	scripts/setup
	@touch $@

.venv/.installed-dev: pyproject.toml hatch_build.py scripts/setup
	scripts/setup dev
	@touch .venv/.installed $@

# One that cannot be installed is reported as missing by the run.
.venv-peers/.installed: scripts/setup-peers
	scripts/setup-peers
	@touch $@
