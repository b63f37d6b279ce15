# make demo   a DDPM on real digits: trained, sampled, scored, recorded, on a leaderboard (CPU, minutes)
# make test   the tests
# make lint   formatting, lint and types
# make reproduce   one recorded baseline each of six families trained again: the same scores? (two cores, under ten minutes)
# make fuzz   a hundred times as many made-up submissions as the tests read (half an hour)
# make soak   twenty kill -9 at random moments, each resumed, ending bit-identical to an undisturbed run

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(if $(shell $(name) -c 'import sys; sys.exit(not (3,11) <= sys.version_info < (3,14))' 2>/dev/null && echo yes),$(name))))
VENV := .venv
BIN := $(VENV)/bin
# Those that take longest first.
REPRODUCED := ncsn udm-blur edm ddpm eae fgan-kl
STAMP := $(VENV)/.installed

.PHONY: demo test lint reproduce fuzz soak clean

demo: $(STAMP)
	$(BIN)/python -m genbench run_dir=runs/demo
	rm -rf runs/demo-leaderboard
	$(BIN)/python -m genbench.leaderboard submit runs/demo --division open --name demo --to runs/demo-leaderboard
	$(BIN)/python -m genbench.leaderboard build --to runs/demo-leaderboard
	@echo
	@echo "sample grid      runs/demo/samples/grid.png"
	@echo "record           runs/demo/result.json"
	@echo "leaderboard row  runs/demo-leaderboard/README.md, and index.html for a browser"

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff format --check genbench tests
	$(BIN)/ruff check genbench tests
	$(BIN)/mypy

reproduce: $(STAMP)
	$(BIN)/python -m genbench.baselines check
	$(BIN)/python -m genbench.baselines reproduce --jobs 2 $(addprefix digits/,$(REPRODUCED))

fuzz: $(STAMP)
	GENBENCH_FUZZ=100 $(BIN)/python -m pytest tests/leaderboard/test_fuzz.py

soak: $(STAMP)
	$(BIN)/python tests/soak/kill_checkpoints.py --kills 200
	$(BIN)/python tests/soak/kill_runs.py --kills 20

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed; type make PYTHON=/path/to/python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info
