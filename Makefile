# `make` prints the verbs. They act on what is running: its containers' labels say which files made it.
COMPOSE = COMPOSE_FILE=$$(python3 -m ops files) docker compose
.DEFAULT_GOAL = help

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

adopt: ## What to change in the project in app/ before its first start; reads it, changes nothing
	@python3 -m ops adopt

up: ready ## Start over TCP; a second time, take in what has changed
	python3 -m ops up tcp

up-unix: ready ## The same over a Unix socket
	python3 -m ops up unix-socket

up-direct: ready ## uWSGI answering HTTP by itself, on 127.0.0.1:20001
	python3 -m ops direct

dev: ready ## Develop: what is in app/ answers as you save it, with DEBUG; make up goes back
	python3 -m ops dev

attach: ## The terminal of uwsgi, for breakpoint() under make dev; Ctrl-C leaves it
	docker attach --detach-keys ctrl-c $$($(COMPOSE) ps --quiet uwsgi)

down: stop ## Stop and remove the containers; the data stays
	$(COMPOSE) down --remove-orphans

stop: ## Stop the containers gracefully; make up starts them again
	$(COMPOSE) stop nginx # first: what it has accepted is still answered
	$(COMPOSE) stop

logs: ## Follow the logs; S=nginx for one service
	$(COMPOSE) logs --follow --tail 100 $(S)

trace: ## All that was logged about one request; ID= its X-Request-ID
	$(if $(ID),,$(error Say which request: make trace ID=..., from the header X-Request-ID of its answer))
	@python3 -m ops trace $(ID)

ps: ## The containers and their health
	$(COMPOSE) ps --all

status: ## Workers, requests, memory, queue; JSON=1 for the raw document
	@python3 -m ops status $(if $(JSON),--json)

top: ## The same, followed every second, with requests per second
	@python3 -m ops top

deploy: ready ## Bring the code in app/ into service; the old release serves until the new one is healthy
	python3 -m ops deploy

rollback: ## Bring the release before back, by its image
	python3 -m ops rollback

releases: ## The last three releases; * marks the one that serves
	@python3 -m ops releases

scale: ## Run several uwsgi containers; N=3
	$(if $(N),,$(error Say how many: make scale N=2))
	python3 -m ops scale $(N)

restart: ## Restart uwsgi, requests wait meanwhile; S=nginx for another (nginx itself is a gap)
	$(COMPOSE) restart $(or $(S),uwsgi)

reload: ## Fresh workers in every uwsgi container, no request lost
	python3 -m ops reload

doctor: ## What is wrong with what runs, and how to mend it
	@python3 -m ops doctor

manage: ## Django's command line; CMD="createsuperuser"
	$(if $(CMD),,$(error Say which command: make manage CMD="createsuperuser"))
	$(COMPOSE) exec uwsgi python manage.py $(CMD)

shell: ## A shell in the uwsgi container; S=nginx for another
	$(COMPOSE) exec $(or $(S),uwsgi) bash

test: ready .venv/done ## Prove it on both transports; K=expression selects tests
	.venv/bin/pytest $(if $(K),-k "$(K)")

prove: ready .venv/done ## 20 deploys and every fault under load, written to docs/measured/proof.md; about half an hour
	.venv/bin/python -m tools.prove

bench: ready .venv/done ## Measure it against gunicorn and granian on this machine; QUICK=1, CHECK=1 holds it to its targets
	.venv/bin/python -m tools.bench $(if $(QUICK),--quick) $(if $(CHECK),--check)

sbom: ready .venv/done ## What is in the running images, as CycloneDX documents in sbom/
	.venv/bin/python -m tools.supply sbom

outdated: ready .venv/done ## Which Python and Debian packages have updates
	@.venv/bin/python -m tools.supply outdated

update: ready .venv/done ## Lock the newest packages, with hashes, and build on a fresh base; what runs is not touched
	.venv/bin/python -m tools.supply update

check: ready .venv/done ## Linters, types, and every configuration as its own program reads it
	.venv/bin/python -m tools.check

clean: ## Remove containers, images AND DATA of this stack; asks for CONFIRM=1
	$(if $(filter 1,$(CONFIRM)),,$(error This removes the database and uploads (volume data). If you mean it: make clean CONFIRM=1))
	$(COMPOSE) down --remove-orphans --volumes --rmi local
	python3 -m ops forget

up-%:
	@echo 'There is no transport "$*". Type make up (TCP), make up-unix or make up-direct.' >&2; exit 2

ready:
	@ops/run setup

.venv/done: tests/requirements.txt
	@tools/venv

.PHONY: help adopt up up-unix up-direct dev attach down stop logs trace ps status top deploy rollback releases scale restart reload
.PHONY: doctor prove bench sbom outdated update manage shell test check clean ready
