# Everything happens in .venv; PYTHON chooses what it is made from (3.11 to 3.13).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint check bench bench-peers accuracy gate fixtures doctor libarchive clean

demo: .venv/run  ## Set up and process the crash that comes with the package
	$(BIN)/deadreckon demo

test: .venv/dev  ## Set up and run the tests, on all cores
	$(BIN)/python -m pytest -q -n auto

lint: .venv/dev  ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test

bench: .venv/bench  ## Check answers, then time them, and write docs/benchmarks.md: a few minutes
	$(BIN)/python -m benchmarks.run

bench-peers: .venv/bench  ## The same beside other tools, which it installs (needs npm, and a corpus)
	$(BIN)/python -m benchmarks._peers .venv/peers
	$(BIN)/python -m benchmarks.run --peers .venv/peers

accuracy: .venv/dev  ## Count agreement with what is known to be true into docs/accuracy.md
	$(BIN)/python -m benchmarks.accuracy --write

gate: .venv/dev  ## What a crash costs in counts, against their limits
	$(BIN)/python -m benchmarks.gate

fixtures:  ## Rebuild native_fixtures/ (needs gcc, g++, gdb)
	$(PYTHON) native_fixtures/build.py

doctor: .venv/run
	$(BIN)/deadreckon doctor

.venv/run: pyproject.toml | libarchive
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/dev: .venv/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

.venv/bench: .venv/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

# Without the system library deadreckon opens zip, tar, gz, bz2 and xz only; `deadreckon doctor` says so.
libarchive:
	@$(PYTHON) -c 'import ctypes.util, sys; sys.exit(not ctypes.util.find_library("archive"))' \
	|| { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get install --yes --quiet libarchive13 >/dev/null; } \
	|| echo "libarchive is not installed: only zip, tar, gz, bz2 and xz archives will open"

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
