# Everything starts here: `make run` and `make test` set up what they need and say what they do.
# Needs Debian's python3 (3.11 or 3.12), git and make; the rest is fetched by `make setup`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.outspool-setup
SMSC   := tests/support/smsc

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.PHONY: help setup system peers rivals run test lint bench lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

setup: system $(STAMP) ## system packages where missing, virtual environment, compiled RTP engine

# The end of a recipe that put names of Debian packages into the array `missing`.
define INSTALL
(( $${#missing[@]} )) || exit 0
root=()
if (( EUID )); then
	command -v sudo >/dev/null && root=(sudo) || {
		echo "setup: please have these installed (no root, no sudo here): $${missing[*]}" >&2; exit 1; }
fi
echo "setup: installing system packages: $${missing[*]}"
"$${root[@]}" apt-get update -qq
"$${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}"
endef

# Only what is missing is installed. gcc and the headers compile native/rtp, sip-tester is SIPp: the
# simulated carrier of the demo and the independent judge of the tests.
system:
	@missing=()
	command -v gcc >/dev/null || missing+=(gcc libc6-dev)
	command -v sipp >/dev/null || missing+=(sip-tester)
	command -v $(PYTHON) >/dev/null || { echo "setup: $(PYTHON) not found (make PYTHON=...)" >&2; exit 1; }
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
	$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' \
		|| missing+=(python3-dev)
	$(INSTALL)

# Only for the tests: SMSCs of other makes, npm's smpp on Node.js and Debian's Net::SMPP; mail servers
# (Debian's own Postfix and Dovecot are switched off again, nothing of theirs in /etc is read);
# iproute2 for networks that lose packets.
peers: setup
	@missing=()
	command -v node >/dev/null || missing+=(nodejs)
	command -v npm >/dev/null || missing+=(npm)
	perl -MNet::SMPP -e 1 2>/dev/null || missing+=(libnet-smpp-perl)
	[[ -x /usr/sbin/postfix ]] || missing+=(postfix)
	[[ -x /usr/lib/dovecot/imap ]] || missing+=(dovecot-imapd)
	[[ -x /usr/sbin/dnsmasq ]] || missing+=(dnsmasq-base)
	{ command -v ip && command -v ss; } >/dev/null || missing+=(iproute2)
	$(INSTALL)
	for service in postfix dovecot; do
		if [[ "$${missing[*]}" == *"$$service"* ]] && [[ -d /run/systemd/system ]]; then
			"$${root[@]}" systemctl disable -q --now "$$service" # the tests start their own
		fi
	done

$(SMSC)/node_modules/.package-lock.json: $(SMSC)/package-lock.json | peers
	@echo "setup: installing the npm package smpp below $(SMSC)"
	cd $(SMSC)
	npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	touch node_modules/.package-lock.json

# Only for `make bench`: Debian's SMS gateway, to be measured beside ours.
rivals: peers
	@missing=()
	[[ -x /usr/sbin/bearerbox ]] || missing+=(kannel)
	$(INSTALL)

$(STAMP): requirements.lock pyproject.toml $(wildcard setup.py native/rtp/*.[ch] native/rtp/build.py)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
		|| { echo "setup: Python 3.11 or 3.12 is needed, $(PYTHON) is $$($(PYTHON) -V)" >&2; exit 1; }
	if [[ ! -x $(BIN)/python ]]; then
		echo "setup: making $(VENV)"
		$(PYTHON) -m venv $(VENV)
	fi
	echo "setup: installing the locked dependencies"
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	echo "setup: installing outspool, compiling the RTP engine"
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

run: setup ## a node, a simulated carrier, a campaign of 200 calls over real SIP
	@$(BIN)/outspool demo

lint: setup ## ruff and mypy
	@echo "lint: ruff, mypy --strict"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint $(SMSC)/node_modules/.package-lock.json ## lint, types, then every test (import contracts among them)
	@$(BIN)/pytest

bench: rivals $(SMSC)/node_modules/.package-lock.json ## every measurement, as tables
	@for name in dispatch pacing dial ingest concurrent sms email; do
		$(BIN)/python -m bench $$name
	done

lock: ## requirements.lock anew from pyproject.toml (needs uv)
	@command -v uv >/dev/null || { echo "lock: uv is not installed (pip install uv)" >&2; exit 1; }
	uv pip compile pyproject.toml --universal --python-version 3.11 --extra dev --generate-hashes \
		--no-emit-index-url --no-header -q -o requirements.lock

clean: ## everything that can be made again (never outspool-data)
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* \
		.import_linter_cache native/rtp/_rtp.c native/rtp/_rtp.*.so native/rtp/_rtp.o $(SMSC)/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
