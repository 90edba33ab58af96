# Two commands for a fresh machine: `make demo` and `make test`. Everything goes into .venv.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
CORPORA ?= ../shared/corpora
REPLAY ?= ../shared/tools/replay_junit.py
# Thousands of processes start in the tests, and each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
# Two cores are busy with three workers, for a third of the tests' time is waiting. Neighbours share a worker, and so what
# their module has made.
BESIDE = -n 3 --dist worksteal
# Pure functions do not wait: a third worker would only load everything once more. Laws are tried with fewer drawn examples.
QUICK = -n 2 --dist worksteal -p no:schemathesis --hypothesis-profile=quick
# `tests/unit` mirrors `fedstep/`. Of the server only what aggregates is pure: the rest has stores and sockets.
UNIT = tests/unit
NO_SERVERS = --ignore-glob='tests/unit/server/test_*' --ignore=tests/unit/server/storage --ignore=tests/unit/server/secagg
# Pages in plain terms: `make check` holds them to that. Add a page once `make prose` is silent about it.
PLAIN = README.md CONTRIBUTING.md CHANGELOG.md SECURITY.md CODE_OF_CONDUCT.md docs/index.md docs/tutorial docs/how-to \
  $(addprefix docs/reference/,data.md python.md reports.md results.md versions.md) \
  $(addprefix docs/explanation/,architecture.md data-protection.md glossary.md history.md model.md threat-model.md) docs/decisions
EXPORT = $(BIN)/uv export --quiet --frozen --no-emit-project --no-default-groups --no-annotate --no-header
PROSE = README.md CONTRIBUTING.md CHANGELOG.md SECURITY.md CODE_OF_CONDUCT.md docs

.PHONY: demo docs prose test-unit test test-full fuzz coverage check lock bench soak evaluate evaluate-privacy starter vocabulary tools actions clean

demo: .venv/demo  ## recorded builds of real projects against a real aggregator; writes demo-report.html
	$(BIN)/fedstep demo

test-unit: .venv/dev  ## the tests of pure functions, without servers, git and pipelines: under a minute
	$(BIN)/pytest $(QUICK) -m "not full and not slow" $(UNIT) $(NO_SERVERS)

test: tools .venv/dev  ## the whole suite except what is marked `full`
	$(BIN)/pytest $(BESIDE)

test-full: .venv/dev  ## what takes long: pipelines run whole, every failure on every surface, replicas under load
	@bash tests/tools.sh full
	$(BIN)/pytest $(BESIDE) -m full
	$(BIN)/pytest $(BESIDE) -m "hypothesis and not full" --hypothesis-profile=thorough $(UNIT)
	$(BIN)/python -m tests.fuzz

fuzz: .venv/dev  ## mutated reports for ten minutes: nothing is raised, and time and memory stay bounded
	$(BIN)/python -m tests.fuzz

coverage: .venv/dev  ## branch coverage of the unit tests; fails below `fail_under` of pyproject.toml
	$(BIN)/pytest -n 2 -m "not full" $(UNIT) --cov --cov-report=term

check: .venv/dev  ## lint, spelling, types, architecture, docs: seconds
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/python -m tests.prose --strict $(PLAIN)
	$(BIN)/proselint check --config tests/proselint.json $(PLAIN)
	$(BIN)/mypy
	$(BIN)/pytest tests/test_architecture.py tests/test_docs.py tests/test_docs_site.py tests/test_repository.py

prose: .venv/dev  ## words and phrases in the documentation that CONTRIBUTING.md advises against; warns only
	-$(BIN)/proselint check --config tests/proselint.json $(PROSE)
	$(BIN)/python -m tests.prose $(PROSE)

docs: .venv/dev  ## the documentation site, in .venv/site; builds without a network, and fails on a broken link
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lock: .venv/dev  ## brings uv.lock up to date with pyproject.toml, and the files with the hashes of what is installed elsewhere
	$(BIN)/uv lock
	$(EXPORT) > actions/predict/requirements.txt
	for action in plan triage; do cp actions/predict/requirements.txt actions/$$action/; done
	$(EXPORT) --extra train > actions/train/requirements.txt
	$(EXPORT) --extra server > docs/deploy/requirements.txt
	$(EXPORT) --only-group build > docs/deploy/build-requirements.txt
	$(EXPORT) --only-group release > .github/requirements.txt

bench: .venv/dev  ## writes docs/reference/benchmarks.json, each figure beside its yardstick of the same run
	$(BIN)/python -m tests.benchmarks docs/reference/benchmarks.json

soak: .venv/dev  ## kills the aggregator a hundred times under load and accounts for every receipt
	$(BIN)/python -m tests.benchmarks.soak 100

evaluate: .venv/dev  ## recorded CI through train, predict and triage, counts asserted; then the table of docs/reference/results.md
	$(BIN)/python -m tests.benchmarks.evaluate $(CORPORA) $(REPLAY)
	$(BIN)/python -m tests.benchmarks.time_changes --corpora $(CORPORA)
	rm -rf .venv/evaluate
	$(BIN)/python -m tests.benchmarks.results $(CORPORA) $(REPLAY) .venv/evaluate

evaluate-privacy: .venv/dev  ## every figure of docs/explanation/privacy.md and docs/explanation/attacks.md
	CORPORA=$(CORPORA) $(BIN)/python -m tests.benchmarks.privacy .venv/evaluate-privacy
	$(BIN)/python -m tests.benchmarks.attacks $(CORPORA) .venv/evaluate-privacy

vocabulary: .venv/dev  ## the closed list of words, made again from its counts
	$(BIN)/python -m tests.studies.vocabulary $(CORPORA)/words.csv > fedstep/schema/vocabulary.txt

starter: .venv/dev  ## the starter model, made again from the licensed corpora
	rm -rf .venv/replays && mkdir .venv/replays
	for reruns in 0 1; do $(PYTHON) $(REPLAY) --out .venv/replays/$$reruns --builds 60 --reruns $$reruns --seed $$((reruns + 1)); done
	for archive in $(CORPORA)/junit/*.tar.gz; do tar -xzf $$archive -C .venv/replays; done
	$(BIN)/python -m tests.studies.starter $(CORPORA) .venv/replays > .venv/starter.safetensors
	mv .venv/starter.safetensors fedstep/model/starter.safetensors

tools:  ## what the tests need beside Python
	@bash tests/tools.sh

.venv/bin/python:
	$(PYTHON) -m venv .venv || { [ "$$(id -u)" = 0 ] && apt-get -o DPkg::Lock::Timeout=400 update -qq && \
	  apt-get -o DPkg::Lock::Timeout=400 install -y -qq python3-venv && $(PYTHON) -m venv .venv; }

.venv/demo: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[train,server,report]'
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

actions:  ## copies actions/common/step.sh into the actions
	@for action in plan predict train triage; do cp actions/common/step.sh actions/$$action/step.sh; done

clean:
	rm -rf .venv demo-report.html
