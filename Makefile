# `make demo` and `make test` set up what they need; a python3 >= 3.11 is all that must be there.
PYTHON ?= python3
BIN := .venv/bin
DEMO ?= demo
# Some containers set it; each of the many processes that the tests start would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check bench docs pages pictures clean

demo: .venv/ready
	$(BIN)/mil demo --out $(DEMO)

# Types are checked beside the tests: they take one core half a minute. Of three workers one mostly waits.
test: .venv/test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy & types=$$!; \
		$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder && wait $$types

check: .venv/test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every measured claim of the manual in one table. BENCH="--only speed" runs a part; see benchmarks/claims.py.
bench: .venv/test-ready
	$(BIN)/python -m benchmarks.claims $(BENCH)

# The manual as a site with a search, in site/.
docs: .venv/docs-ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The pages of the manual that are made from docstrings and messages: docs/api.md and docs/messages.md.
pages: .venv/test-ready
	$(BIN)/python docs/make_api.py
	$(BIN)/python docs/make_messages.py

# The manual's pictures, from a demo that is made for them; needs Chromium.
pictures: .venv/ready
	$(BIN)/python docs/make_pictures.py

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11. Pass a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/ready: .venv/made pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[weights]'
	@touch $@

.venv/test-ready: .venv/made pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

.venv/docs-ready: .venv/made pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

clean:
	rm -rf .venv $(DEMO) site
