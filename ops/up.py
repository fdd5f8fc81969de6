"""`make up`, `make up-unix`, `make up-direct`, `make dev`: build, check the code, start, say where."""

from __future__ import annotations

import math
import os
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any

from ops import deploy, preflight, releases, stack
from ops.console import ROOT, Stop, quiet
from ops.stack import Container, compose_command

WAIT_SECONDS = 120
# One may fail for a reason that passes.
FAILED_STARTS = 3
DIRECT = "overrides/direct.yaml"


def up(transport: str) -> None:
    """Start the stack over this transport. Raises Stop, with what was there before left as it was."""
    files = stack.with_transport(stack.settings().files.split(":"), transport)
    if stack.containers("direct"):
        files = stack.with_override(files, DIRECT)
    verb, other = ("up", "make up-unix") if transport == "tcp" else ("up-unix", "make up")
    with deploy.only_one(verb) as lock:
        running = [container for container in stack.containers("uwsgi") if container.running]
        config = start(files, "--scale", f"uwsgi={deploy.unfinished(lock) or len(running) or 1}")
        releases.remember()
    address = stack.published(config, "nginx-socket")
    processes = config["services"]["uwsgi"]["environment"]["UWSGI_PROCESSES"]
    print(
        f"\nReady: http://{address}/ over {transport}, {processes} workers\n"
        f'Next:  make status   make logs   make manage CMD="createsuperuser"   {other} (the other transport)'
    )


def develop() -> None:
    """Start the stack with the source mounted and watched. Raises Stop as `up` does."""
    files = stack.with_override(stack.current_files(), stack.DEVELOPMENT)
    app, data = ROOT / "app", ROOT / "dev-data"
    owner = app.stat()
    # Docker would create what is missing, owned by root.
    for folder in (data, data / "media"):
        folder.mkdir(exist_ok=True)
        os.chown(folder, owner.st_uid, owner.st_gid)
    os.environ |= {"DEV_UID": str(owner.st_uid), "DEV_GID": str(owner.st_gid)}
    with deploy.only_one("dev"):
        config = checked_and_built(files)
        launch(files, "--scale", "uwsgi=1")
    address = stack.published(config, "nginx-socket")
    print(
        f"\nReady: http://{address}/ reloads app/ on every save, with DEBUG; its data is in dev-data/\n"
        "Next:  make logs   make attach (for breakpoint())   make manage CMD=test   make up (back to production)"
    )


def direct() -> None:
    """Start a uWSGI that answers HTTP itself, next to the running stack. Raises Stop as `up` does."""
    config = start(stack.with_override(stack.current_files(), DIRECT), "direct")
    address = stack.published(config, "direct")
    print(
        f"\nReady: http://{address}/ by uWSGI alone; static files come from nginx and are missing here\n"
        "Next:  compare it with the same address through nginx; make down stops both"
    )


def start(files: Sequence[str], *arguments: str) -> dict[str, Any]:
    """Check, build, prove, start and wait; return the configuration that runs."""
    fresh = not stack.containers()
    config = checked_and_built(files)
    try:
        prove(files)
        launch(files, *arguments)
    except Stop:
        if fresh:
            # Nothing ran before, so nothing half-started may stay; volumes do.
            quiet(compose_command(files, "down", "--remove-orphans"), seconds=WAIT_SECONDS)
        raise
    return config


def checked_and_built(files: Sequence[str]) -> dict[str, Any]:
    """Build the images if the settings are right, and return the configuration. Raises Stop if they are not."""
    config = stack.config(files)
    preflight.check(config)
    print("Building the images (about two minutes the first time)", flush=True)
    stack.build(files)
    return config


def prove(files: Sequence[str]) -> None:
    """Import the project in the new image, with its real settings, before anything is replaced."""
    try:
        stack.run_release(files, "check_project.py")
    except Stop as stop:
        raise Stop(f"{stop}\n\nYour project does not start (above). A running version keeps serving.") from stop


def launch(files: Sequence[str], *arguments: str) -> None:
    """Start the containers and wait until all are healthy. Raises Stop with the logs of those that are not."""
    print("Starting, and waiting until every container is healthy", flush=True)
    options = ["--detach", "--no-build", "--remove-orphans", "--wait", "--wait-timeout", str(WAIT_SECONDS)]
    before = {container.id for container in stack.containers()}
    with tempfile.TemporaryFile("w+") as errors:
        starting = subprocess.Popen(
            compose_command(files, "--progress", "quiet", "up", *options, *arguments), stderr=errors, cwd=ROOT
        )
        try:
            # Compose waits until all are healthy, even for a container that starts, fails and starts again. Those
            # that were there before may: a uwsgi whose uwsgi-socket is being replaced comes back until it is.
            stack.wait_healthy(
                lambda: [container for container in stack.containers() if container.id not in before],
                lambda container: container.restarts >= FAILED_STARTS,
                seconds=math.inf,
                message=f"It failed to start {FAILED_STARTS} times (above).",
                ready=lambda _: starting.poll() is not None,
            )
        finally:
            starting.terminate()
            starting.wait()
        if starting.returncode != 0:
            errors.seek(0)
            wrong = [container for container in stack.containers() if not is_well(container)]
            raise Stop("\n".join([errors.read().strip(), *map(stack.end_of_log, wrong)]))


def is_well(container: Container) -> bool:
    """Return whether a container is as it should be after a start."""
    if container.service == "release":
        return container.exit_code == 0
    return container.running and container.health in ("healthy", "none")
