"""`make up`, `make up-unix`, `make up-direct`, `make dev`: build, check the code, start, say where."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ops import backup, deploy, front_page, preflight, proof, releases, stack, state
from ops.change import change, claim
from ops.console import ROOT, Stop, quiet
from ops.launch import WAIT_SECONDS, launch
from ops.stack import compose_command
from ops.state import State


def up(transport: str | None = None) -> None:
    """Start the stack, or bring it to what files and code ask for now. Raises Stop, with all left as it was.

    Without a transport it keeps the one that runs; the first time, COMPOSE_FILE's.
    """
    verb = {"tcp": "up-tcp", "unix-socket": "up-unix"}.get(transport or "", "up")
    with change(verb) as before:
        kept = state.read() or stack.containers("uwsgi")
        files = state.wanted_files(transport or (before.transport if kept else ""))
        if transport is None:
            note_transport(files)
        if stack.containers("direct"):
            files = stack.with_override(files, stack.DIRECT)
        if not any(container.running for container in stack.containers("uwsgi")):
            print("Building the images (about two minutes the first time)", flush=True)
        now, config = deploy.bring(files, before, everything=True)
        backup.started(files)
    processes = config["services"]["uwsgi"]["environment"]["UWSGI_PROCESSES"]
    other = "make up-tcp" if now.transport == "unix-socket" else "make up-unix"
    print(
        f"\nReady: {stack.site(config)} over {now.transport}, {processes} workers\n"
        f'Next:  make status   make logs   make manage CMD="createsuperuser"   {other} (the other transport)'
    )
    front_page.show()


def note_transport(files: Sequence[str]) -> None:
    """Print that COMPOSE_FILE names another transport than the one these files have, if it does."""
    asked, kept = (stack.transport_of(names) for names in (stack.settings().files.split(":"), files))
    if asked != kept:
        change_it = "make up-tcp" if asked == "tcp" else "make up-unix"
        print(f"Over {kept}, as before; COMPOSE_FILE in .env names {asked}. To change over: {change_it}")


def develop() -> None:
    """Start the stack with the source mounted and watched. Raises Stop as `up` does."""
    developers()
    with change("dev") as before:
        kept = state.read() or stack.containers("uwsgi")
        files = stack.with_override(state.wanted_files(before.transport if kept else ""), stack.DEVELOPMENT)
        releases.remember()
        config = checked_and_built(files)
        claim()
        print("Starting, and waiting until every container is healthy", flush=True)
        now = replace(before, files=state.relative(files), transport=stack.transport_of(files), folder=State.folder)
        # Before the first container is replaced: should this be cut off, `make up` knows that none is production's.
        state.write(replace(now, digests={}))
        launch(files, "--remove-orphans", "--scale", "uwsgi=1")
    print(
        f"\nReady: {stack.site(config)} reloads {stack.settings().shown()}/ on every save, with DEBUG; "
        "what it writes to /data is in dev-data/\n"
        "Next:  make logs   make attach (for breakpoint())   make manage CMD=test   make up (back to production)"
    )
    front_page.show()


def developers() -> None:
    """Make the data of `make dev`, and have its containers run as the owner of the project's folder."""
    data = ROOT / "dev-data"
    folder = stack.settings().folder()
    # Compose would make it, owned by root.
    if not folder.is_dir():
        raise Stop(f"{folder} is not a folder. Name the one of your project in .env: PROJECT_DIR=")
    owner = folder.stat()
    # Docker would create what is missing, owned by root.
    for folder in (data, data / "media", data / "private"):
        folder.mkdir(exist_ok=True)
        if (folder.stat().st_uid, folder.stat().st_gid) != (owner.st_uid, owner.st_gid):
            os.chown(folder, owner.st_uid, owner.st_gid)
    os.environ |= {"DEV_UID": str(owner.st_uid), "DEV_GID": str(owner.st_gid)}


def direct() -> None:
    """Start a uWSGI that answers HTTP itself, next to the running stack. Raises Stop as `up` does."""
    with change("up-direct") as before:
        if stack.includes(before.files, stack.DEVELOPMENT):
            raise Stop("This is the stack of `make dev`, of which there is no image to serve. First: make up")
        files = stack.with_override(state.current_files(), stack.DIRECT)
        serving = releases.running()
        if serving:
            config = stack.config(files)
            preflight.check(config)
            releases.name(serving, "latest")
            launch(files, "--no-deps", "direct")
        else:
            config = checked_and_built(files)
            claim()
            start_direct(files)
        state.write(replace(before, files=state.relative(files)))
    address = stack.published(config, "direct")
    print(
        f"\nReady: http://{address}/ by uWSGI alone; static files come from nginx and are missing here\n"
        "Next:  compare it with the same address through nginx; make down stops both"
    )


def start_direct(files: Sequence[str]) -> None:
    """Prove the project, start it alone and wait. Raises Stop, with nothing half-started left."""
    fresh = not stack.containers()
    try:
        proof.imported(files)
        print("Starting, and waiting until every container is healthy", flush=True)
        launch(files, "--remove-orphans", "direct")
    except Stop:
        if fresh:
            # Nothing ran before, so nothing half-started may stay; volumes do.
            quiet(compose_command(files, "down", "--remove-orphans"), seconds=WAIT_SECONDS)
        raise


def checked_and_built(files: Sequence[str]) -> dict[str, Any]:
    """Build the images if the settings are right, and return the configuration. Raises Stop if they are not."""
    config = stack.config(files)
    preflight.check(config)
    print("Building the images (about two minutes the first time)", flush=True)
    stack.build(files)
    return config
