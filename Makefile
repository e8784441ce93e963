# Developer commands; `make` lists them. Each sets up what it needs, and can be run again.

HOST ?= mail1

.DEFAULT_GOAL := help
.PHONY: help
help: ## List the commands
	@awk -F ":.*## " "/^[a-zA-Z_-]+:.*## / {printf \"  make %-18s %s\n\", \$$1, \$$2}" $(MAKEFILE_LIST)

.PHONY: demo test unit lint dovecot benchmark
demo: ## Configure a cluster of five virtual machines and send mail through it
	@tools/setup base lab
	@tools/lab up
	@tools/demo

test: ## Run all tests, as CI does
	@tools/test

unit: ## Run the unit tests
	@tools/test unit

lint: ## Run the linters and the type checker
	@tools/test lint

dovecot: ## Ask Dovecot 2.3.13, 2.3.19 and 2.4.1 about every plan and every shard (Docker)
	@tools/test dovecot

benchmark: ## How long judging takes, for up to 10,000 hosts, and validate.yml for up to 1,000
	@tools/setup base
	@.venv/bin/python tools/benchmark.py
	@.venv/bin/python tools/benchmark.py --ansible

.PHONY: site
site: ## Build the package, test it with ansible-test, and make a site of the documentation, .work/site/html
	@tools/test package

.PHONY: faults
faults: ## Break the lab's cluster in every way under live traffic, in every cell, and print the table (an hour and more)
	@NFSMAIL_FAULTS=all tools/test molecule-faults
	@cat .work/faults.txt

.PHONY: bench
bench: ## Count the NFS calls of every cell on the lab, and draw them; CELL=random for a part (an hour)
	@tools/setup base lab
	@tools/lab up
	@tools/bench $(CELL)

.PHONY: routing-cost
routing-cost: ## Count what a login costs by shard map, by director and directly (Docker, minutes)
	@tools/setup base docker
	@tools/dockerd start
	@tools/docker-image --dovecot bookworm trixie
	@.venv/bin/python tests/dovecot/routing_cost.py
	@.venv/bin/python tools/docs.py

.PHONY: fuzz
fuzz: ## Feed the brain with nonsense, SECONDS (300) for each of five targets: nothing but our own errors
	@tools/setup base
	@NFSMAIL_FUZZ_SECONDS=$(or $(SECONDS),300) PYTHONPATH=.ansible/collections .venv/bin/pytest -q tests/fuzz

.PHONY: docs
docs: ## Write the tables of docs/ and the roles' READMEs anew from rules, checks and argument specs
	@tools/setup base
	@.venv/bin/python tools/docs.py

SCENARIOS := $(patsubst molecule/%/molecule.yml,molecule-%,$(wildcard molecule/*/molecule.yml))
.PHONY: $(SCENARIOS)
molecule-NAME: ## Run one scenario: default (Docker), single, per_user, switch or faults (lab)
$(SCENARIOS):
	@tools/test $@

.PHONY: setup lab-up lab-down lab-reset lab-status ssh clean
setup: ## Install the tools: packages, .venv, collections
	@tools/setup base lab docker

lab-up: ## Boot the lab; no-op when it is up
	@tools/setup base lab
	@tools/lab up

lab-down: ## Stop the lab and forget its disks
	@tools/lab down

lab-reset: ## Put the lab back to its state after boot, in seconds
	@tools/lab reset

lab-status: ## List the lab's machines, addresses and forwarded ports
	@tools/lab status

ssh: ## Log in to a machine: make ssh HOST=mail1
	@tools/lab ssh $(HOST)

clean: ## Stop everything and remove what the tools made here (images stay in the cache)
	@if [ -d .lab ] && [ -x .venv/bin/python ]; then tools/lab down; fi
	@if [ -d .lab ]; then tools/dockerd stop; fi
	rm -rf .lab .work .venv .ansible .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
