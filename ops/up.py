"""`make up`, `make up-unix`, `make up-direct`: build, prove the code, start, say where."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bootstrap.console import ROOT, Stop
from ops import preflight, stack
from ops.build import build
from ops.stack import compose_command

WAIT_SECONDS = 120
DIRECT = "compose.direct.yaml"


def up(transport: str) -> None:
    """Start the stack over this transport. Raises Stop, with what was there before left as it was."""
    files = stack.with_transport(stack.chosen_files(), transport)
    if stack.containers("direct"):
        files.append(DIRECT)
    config = start(files, services=[])
    address = published(config, "nginx")
    processes = config["services"]["uwsgi"]["environment"]["UWSGI_PROCESSES"]
    other = "make up-unix" if transport == "tcp" else "make up"
    print(
        f"\nReady: {address} over {transport}, {processes} workers\n"
        f'Next:  make status   make logs   make manage CMD="createsuperuser"   {other} (the other transport)'
    )


def direct() -> None:
    """Start uWSGI answering HTTP by itself, beside what runs. Raises Stop as `up` does."""
    files = stack.running_files() or stack.chosen_files()
    if not any(Path(file).name == DIRECT for file in files):
        files = [*files, DIRECT]
    config = start(files, services=["direct"])
    print(
        f"\nReady: {published(config, 'direct')} by uWSGI alone; static files are nginx's and missing here\n"
        "Next:  compare with the same address through nginx; make down ends both"
    )


def start(files: Sequence[str], services: Sequence[str]) -> dict[str, Any]:
    """Check, build, prove, start and wait; return the configuration that runs."""
    config = stack.config(files)
    preflight.check(config)
    before = stack.containers()
    print("Building the images", flush=True)
    build(files)
    try:
        prove(files)
        print("Starting, and waiting until every container is healthy", flush=True)
        launch(files, services)
    except Stop:
        if not before:
            # Nothing ran before, so nothing half-started may stay; volumes do.
            subprocess.run(
                compose_command(files, "down", "--remove-orphans"), capture_output=True, check=False, cwd=ROOT
            )
        raise
    return config


def prove(files: Sequence[str]) -> None:
    """Import the project in the new image, with its real settings, before anything is replaced."""
    done = subprocess.run(
        compose_command(files, "run", "--rm", "--no-deps", "-T", "release", "check.py"),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise Stop(
            f"{done.stdout.strip() or done.stderr.strip()}\n\n"
            "Your project does not start (above). What was running runs on."
        )


def launch(files: Sequence[str], services: Sequence[str]) -> None:
    """Start the containers and wait until each is healthy. Raises Stop with the last lines of the one that is not."""
    command = compose_command(
        files,
        "--progress",
        "quiet",
        "up",
        "--detach",
        "--no-build",
        "--remove-orphans",
        "--wait",
        "--wait-timeout",
        str(WAIT_SECONDS),
        *services,
    )
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise Stop("\n".join([done.stderr.strip(), *last_words()]))


def last_words() -> list[str]:
    """Return the last log lines of each container that is not as it should be."""
    words = []
    for one in stack.containers():
        fine = one.exit_code == 0 if one.service == "release" else one.running and one.health in ("healthy", "none")
        if not fine:
            logs = subprocess.run(
                ["docker", "logs", "--tail", "15", one.id],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            words += [
                f"\n--- {one.name} ({'running' if one.running else f'exit {one.exit_code}'}, {one.health}):",
                logs.stdout,
            ]
    return words


def published(config: dict[str, Any], service: str) -> str:
    """Return the address at which a service can be reached from this machine."""
    port = config["services"][service]["ports"][0]
    one = stack.workers(service)[0]
    told = stack.docker("port", one.id, f"{port['target']}/tcp").splitlines()[0]
    host, _, number = told.rpartition(":")
    return f"http://{'localhost' if host in ('0.0.0.0', '[::]') else host}:{number}/"
