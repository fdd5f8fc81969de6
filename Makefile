# `make` lists the commands. They act on the running stack and keep its transport; .NAME.state.json records both.
# ##@ starts a group of everyday commands in that list, ##+ a group that is listed with ALL=1.
COMPOSE = files=$$(ops/run files) && COMPOSE_FILE=$$files docker compose
.DEFAULT_GOAL = help

help: ## List the commands of every day; ALL=1 lists the rest
	@awk -v all='$(ALL)' -F ':.*## |^##[@+] ' '/^##[+]/ && !all {exit} /^##[@+]/ {print "\n" $$2} \
		/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2} END {if (!all) print "\nmake help ALL=1 lists the rest"}' Makefile

##@ Start
up: ## Start, or apply changes; keeps the transport
	ops/run up

up-unix: ## Like make up, over a Unix socket from now on
	ops/run up unix-socket

dev: ## Develop: reload the project on every save, with DEBUG; make up returns to production
	ops/run dev

stop: ## Stop the containers gracefully; make up starts them again
	ops/run stop

##@ Change
adopt: ## List what to change in your project before going live (read-only)
	@ops/run adopt

deploy: ## Deploy the project's code without losing a request
	ops/run deploy

rollback: ## Return to the previous release, without a build
	ops/run rollback

##@ Look
status: ## Workers, requests, memory, queue; JSON=1 for the raw document
	@ops/run status $(if $(JSON),--json)

logs: ## Follow the logs; S=nginx for one service
	$(COMPOSE) logs --follow --tail 100 $(S)

doctor: ## Diagnose the running stack
	@ops/run doctor

##@ Data
manage: ## Django's command line, in a separate container; CMD="createsuperuser"
	$(if $(CMD),,$(error Which command? Type: make manage CMD="createsuperuser"))
	@ops/run manage -- $(CMD)

##+ Start, more
up-tcp: ## Like make up, over TCP from now on
	ops/run up tcp

up-direct: ## Serve HTTP from uWSGI without nginx, to find the culprit (DIRECT_PORT)
	ops/run direct

down: ## Stop and remove the containers; the data stays
	ops/run down

attach: ## Attach to uwsgi's terminal for breakpoint(); Ctrl-C detaches
	container=$$($(COMPOSE) ps --quiet uwsgi) && docker attach --detach-keys ctrl-c $$container

##+ Change, more
scale: ## Run several uwsgi containers; N=3
	$(if $(N),,$(error How many? Type: make scale N=2))
	ops/run scale $(N)

restart: ## Restart uwsgi, or nginx with S=nginx, while requests wait
	ops/run restart $(or $(S),uwsgi)

reload: ## Replace the workers of every uwsgi container, losing no request
	ops/run reload

##+ Look, more
trace: ## Everything logged about one request; ID=<X-Request-ID>
	$(if $(ID),,$(error Which request? Type: make trace ID=..., with the header X-Request-ID of its answer))
	@ops/run trace $(ID)

ps: ## The containers and their health
	$(COMPOSE) ps --all

top: ## Status every second, with requests per second
	@ops/run top

releases: ## The last three releases; * is live
	@ops/run releases

shell: ## A shell in the uwsgi container; S=nginx for another
	$(COMPOSE) exec $(or $(S),uwsgi) bash

##+ Data, more
certificate: ## Get a certificate now; CERT=fullchain.pem KEY=privkey.pem serves your own
	@ops/run certificate --chain "$(CERT)" --key "$(KEY)"

bring-database: ## Copy an SQLite database into the stack; FROM=app/db.sqlite3, and REPLACE=1 over rows
	$(if $(FROM),,$(error Which file? Type: make bring-database FROM=app/db.sqlite3))
	@ops/run bring-database $(if $(REPLACE),--replace) "$(FROM)"

bring-media: ## Copy a folder of uploads into the stack; FROM=app/media, and REPLACE=1 over files
	$(if $(FROM),,$(error Which folder? Type: make bring-media FROM=app/media))
	@ops/run bring-media $(if $(REPLACE),--replace) "$(FROM)"

backup: ## Back up database, uploads and settings into backups/
	@ops/run backup

backups: ## List the backups
	@ops/run backups

restore: ## Restore a backup; FROM=latest, a day (2026-11-25), or an id
	$(if $(FROM),,$(error Which backup? Type: make restore FROM=latest, or an id of make backups))
	@ops/run restore "$(FROM)"

clean: ## Remove containers, images AND DATA of this stack; asks for CONFIRM=1
	$(if $(filter 1,$(CONFIRM)),,$(error This removes the database and uploads (volumes data, media, private, static) and, with overrides/tls.yaml, the certificate and its account. If you mean it: make clean CONFIRM=1))
	ops/run clean

##+ Work on the stack itself
lint: .venv/done ## Linters and types, in seconds and without Docker
	.venv/bin/python -m tools.lint

check: ready .venv/done ## Every configuration, read by the program that will read it
	.venv/bin/python -m tools.check

test: ready .venv/done ## Run the quick tests on both transports; K=expression selects
	.venv/bin/pytest -m "not slow" $(if $(K),-k "$(K)")

test-all: ready .venv/done ## Run everything, at most 15 minutes; K=expression selects
	.venv/bin/pytest $(if $(K),-k "$(K)")

prove: ready .venv/done ## 20 deploys and every fault under load, written to docs/measured/proof.md; about 45 minutes
	.venv/bin/python -m tools.prove

bench: ready .venv/done ## Benchmark against gunicorn and granian; QUICK=1 is short, CHECK=1 fails on a regression
	.venv/bin/python -m tools.bench $(if $(QUICK),--quick) $(if $(CHECK),--check)

sbom: ready .venv/done ## Write an SBOM of the running images to sbom/ (CycloneDX)
	.venv/bin/python -m tools.supply sbom

outdated: ready .venv/done ## Which Python and Debian packages have updates
	@.venv/bin/python -m tools.supply outdated

update: ready .venv/done ## Re-lock the newest packages and rebuild; the running stack is not touched
	.venv/bin/python -m tools.supply update

up-%:
	@echo 'There is no transport "$*". Type make up-tcp, make up-unix or make up-direct.' >&2; exit 2

ready:
	@ops/run setup

.venv/done: tests/requirements.txt
	@tools/venv

.PHONY: help adopt up up-tcp up-unix up-direct dev attach down stop logs trace ps status top deploy rollback bring-database bring-media certificate backup backups restore releases scale restart reload
.PHONY: doctor manage shell lint check test test-all prove bench sbom outdated update clean ready
