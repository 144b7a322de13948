# make demo: a whole site on this machine, built and broken before your eyes.  make test: everything.
# Both do their own set-up on a fresh Debian or Ubuntu; `make clean` takes it all away again.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
LAB_STATE := .lab
SLOWEST := --durations=30 --durations-min=5

.PHONY: demo test test-unit test-servers test-lab test-faults test-matrix simulate bench lint format lock clean venv

demo: venv
	$(RUN) -m lab.demo

test: test-unit test-servers test-lab

test-unit: venv
	$(RUN) -m pytest tests/unit -m "not servers" --numprocesses auto --dist loadfile

# The same directory: tests that start PostgreSQL, Prefect's server or processes of their own on this machine.
test-servers: venv
	$(RUN) -m lab.packages
	$(RUN) -m pytest tests/unit -m "servers and not faults" --numprocesses auto --dist loadfile $(SLOWEST)

test-lab: venv
	$(RUN) -m pytest tests/lab $(SLOWEST)

# The whole fault suite, with the table of its results in docs/faults.md, and bootstrap killed after each of
# its steps. An hour on two cores.
test-faults: venv
	$(RUN) -m pytest tests/lab/test_bootstrap.py tests/lab/test_bootstrap_migration.py -m faults
	$(RUN) -m pytest tests/unit -m "servers and faults" --numprocesses auto
	HARBOR_HA_FAULTS_PAGE=docs/faults.md $(RUN) -m pytest tests/lab/faults tests/lab/test_from_nothing.py tests/lab/test_adopt_external.py tests/lab/test_disaster.py tests/lab/test_point_in_time.py -m "faults or not faults"

# Whole histories of a simulated site, drawn by their numbers: docs/simulation.md. HOURS= or HISTORIES=, SEED=.
# REPLAY=number tells one. Ends with status 1 and a story when something is violated.
HOURS ?= 0
HISTORIES ?= 0
SEED ?= 1
simulate: venv
	$(RUN) -m tests.simulation $(if $(REPLAY),--replay $(REPLAY),--hours $(HOURS) --histories $(HISTORIES) --seed $(SEED))

# The whole road on nodes of Debian 11, 12 and 13, one after the other, with the table in docs/versions.md.
test-matrix: venv
	$(RUN) -m lab.matrix

# The bounds of backups on this machine, and the seconds of failover, switchover and rejoin on a lab: docs/benchmarks.md.
bench: venv
	$(RUN) -m benchmarks

lint: venv
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: venv
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

# By content, not by age: a lock that is older than the venv, from an archive or an earlier commit, was missed.
LOCKED := $(shell cat requirements.lock pyproject.toml | sha256sum | cut -c1-16)

venv: $(VENV)/.ready-$(LOCKED)

# The lock names versions and hashes and no address: pip takes them from wherever this machine is set up to.
# It is complete, so pip resolves nothing: where a pin is not the newest, its resolver trips over extras.
$(VENV)/.ready-$(LOCKED):
	@./scripts/find-python "$(PYTHON)" > /dev/null
	"$$(./scripts/find-python "$(PYTHON)")" -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(RUN) -m pip check --quiet --disable-pip-version-check
	@rm -f $(VENV)/.ready $(VENV)/.ready-*
	@touch $@

lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --extra test --extra aliyun pyproject.toml --output-file requirements.lock

clean:
	-[ -x $(RUN) ] && $(RUN) -m lab.demo clean && $(RUN) -m lab clean
	rm -rf $(VENV) $(LAB_STATE) lab/site.yml .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
