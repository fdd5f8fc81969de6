"""`make up`, `make up-unix`, `make up-direct`: build, prove the code, start, say where."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from ops import lock, preflight, releases, stack
from ops.build import build
from ops.console import ROOT, Stop
from ops.stack import compose_command

WAIT_SECONDS = 120
# One may fail for a reason that passes.
FAILED_STARTS = 3
DIRECT = "overrides/direct.yaml"


def up(transport: str) -> None:
    """Start the stack over this transport. Raises Stop, with what was there before left as it was."""
    files = stack.with_transport(stack.chosen_files(), transport)
    if stack.containers("direct"):
        files.append(DIRECT)
    verb = "up" if transport == "tcp" else "up-unix"
    with lock.only_one(verb) as held:
        serving = len([one for one in stack.containers("uwsgi") if one.running])
        config = start(files, "--scale", f"uwsgi={lock.unfinished(held) or serving or 1}")
        releases.remember()
    address = published(config, "nginx-socket")
    processes = config["services"]["uwsgi"]["environment"]["UWSGI_PROCESSES"]
    other = "make up-unix" if transport == "tcp" else "make up"
    print(
        f"\nReady: {address} over {transport}, {processes} workers\n"
        f'Next:  make status   make logs   make manage CMD="createsuperuser"   {other} (the other transport)'
    )


def develop() -> None:
    """Start the stack with the source mounted and watched. Raises Stop as `up` does."""
    files = stack.running_files() or stack.chosen_files()
    if not stack.is_development(files):
        files = [*files, stack.DEVELOPMENT]
    app, data = ROOT / "app", ROOT / "dev-data"
    owner = app.stat()
    # Docker would make what is missing, and root its owner.
    for folder in (data, data / "media"):
        folder.mkdir(exist_ok=True)
        os.chown(folder, owner.st_uid, owner.st_gid)
    os.environ |= {"DEV_UID": str(owner.st_uid), "DEV_GID": str(owner.st_gid)}
    with lock.only_one("dev"):
        config = stack.config(files)
        preflight.check(config)
        print("Building the images", flush=True)
        build(files)
        print("Starting, and waiting until every container is healthy", flush=True)
        launch(files, "--scale", "uwsgi=1")
    print(
        f"\nReady: {published(config, 'nginx-socket')} serves app/ as you save it, with DEBUG; data is in dev-data/\n"
        "Next:  make logs   make attach (for breakpoint())   make manage CMD=test   make up (production again)"
    )


def direct() -> None:
    """Start uWSGI answering HTTP by itself, beside what runs. Raises Stop as `up` does."""
    files = stack.running_files() or stack.chosen_files()
    if not stack.includes(files, DIRECT):
        files = [*files, DIRECT]
    config = start(files, "direct")
    print(
        f"\nReady: {published(config, 'direct')} by uWSGI alone; static files are nginx's and missing here\n"
        "Next:  compare with the same address through nginx; make down ends both"
    )


def start(files: Sequence[str], *arguments: str) -> dict[str, Any]:
    """Check, build, prove, start and wait; return the configuration that runs."""
    config = stack.config(files)
    preflight.check(config)
    before = stack.containers()
    print("Building the images", flush=True)
    build(files)
    try:
        prove(files)
        print("Starting, and waiting until every container is healthy", flush=True)
        launch(files, *arguments)
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
    try:
        stack.run_release(files, "check_project.py")
    except Stop as stop:
        raise Stop(f"{stop}\n\nYour project does not start (above). What was running runs on.") from stop


def launch(files: Sequence[str], *arguments: str) -> None:
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
        *arguments,
    )
    before = {one.id for one in stack.containers()}
    with tempfile.TemporaryFile("w+") as said:
        starting = subprocess.Popen(command, stderr=said, cwd=ROOT)
        try:
            while starting.poll() is None:
                # Compose would go on waiting for a container that starts, fails and starts again. Those that
                # were there before may: a uwsgi whose uwsgi-socket is being replaced comes back until it is.
                new = [one for one in stack.containers() if one.id not in before]
                if any(one.restarts >= FAILED_STARTS for one in new):
                    break
                time.sleep(0.2)
        finally:
            starting.terminate()
            starting.wait()
        if starting.returncode != 0:
            said.seek(0)
            raise Stop("\n".join([said.read().strip(), *last_words()]))


def last_words() -> list[str]:
    """Return the last log lines of each container that is not as it should be."""
    return [
        stack.last_words(one)
        for one in stack.containers()
        if not (one.exit_code == 0 if one.service == "release" else one.running and one.health in ("healthy", "none"))
    ]


def published(config: dict[str, Any], service: str) -> str:
    """Return the address at which a service can be reached from this machine."""
    if config["services"][service].get("network_mode") == "host":
        return f"http://{config['services'][service]['environment']['UWSGI_SOCKET']}/"
    port = config["services"][service]["ports"][0]
    one = stack.workers(service)[0]
    told = stack.docker("port", one.id, f"{port['target']}/tcp").splitlines()[0]
    host, _, number = told.rpartition(":")
    return f"http://{'localhost' if host in ('0.0.0.0', '[::]') else host}:{number}/"
