"""The stack as Compose and Docker see it: its files, its settings, its containers."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.console import ROOT, Stop

TRANSPORTS = {"tcp": "compose.tcp.yaml", "unix-socket": "compose.unix-socket.yaml"}
DEVELOPMENT = "overrides/dev.yaml"
HOST_NETWORK = "overrides/host-network.yaml"
PROJECT_LABEL = "com.docker.compose.project"
FILES_LABEL = "com.docker.compose.project.config_files"
SERVICE_LABEL = "com.docker.compose.service"


ONE_OFF_LABEL = "com.docker.compose.oneoff"


@dataclass(frozen=True)
class Container:
    """One container of the stack, as `docker inspect` tells it."""

    id: str
    name: str
    service: str
    running: bool
    health: str
    started: str
    exit_code: int
    restarts: int
    out_of_memory: bool
    image: str
    files: tuple[str, ...]


def setting(name: str) -> str | None:
    """Return a setting as Compose would read it: from the environment, else from .env."""
    if name in os.environ:
        return os.environ[name]
    env = ROOT / ".env"
    lines = env.read_text().splitlines() if env.exists() else []
    found = [line.partition("=")[2].strip().strip("'\"") for line in lines if line.startswith(f"{name}=")]
    return found[-1] if found else None


def project() -> str:
    """Return the project's name by Compose's rule: the setting, else this folder's name."""
    return setting("COMPOSE_PROJECT_NAME") or re.sub(r"^[_-]+", "", re.sub(r"[^a-z0-9_-]", "", ROOT.name.lower()))


def chosen_files() -> list[str]:
    """Return the files that COMPOSE_FILE names, or the TCP stack where it names none."""
    return (setting("COMPOSE_FILE") or f"compose.yaml:{TRANSPORTS['tcp']}").split(":")


def with_transport(files: Sequence[str], transport: str) -> list[str]:
    """Return `files` with this transport in the place of the one they name; what else they name stays.

    Raises Stop if that does not go together.
    """
    if transport == "tcp" and includes(files, HOST_NETWORK):
        raise Stop(
            f"{HOST_NETWORK} goes with the Unix socket. Type make up-unix, or take it out of COMPOSE_FILE in .env"
        )
    others = [file for file in files if file not in TRANSPORTS.values()]
    return [others[0], TRANSPORTS[transport], *others[1:]]


def includes(files: Sequence[str], name: str) -> bool:
    """Return whether one of these files, given by whatever path, is this one of the repository."""
    return any(Path(file).match(name) for file in files)


def transport_of(files: Sequence[str]) -> str:
    """Return the transport that these files make, or `none`."""
    return next((transport for transport, file in TRANSPORTS.items() if includes(files, file)), "none")


def is_development(files: Sequence[str]) -> bool:
    """Return whether these files make the stack of `make dev`."""
    return includes(files, DEVELOPMENT)


def docker(*arguments: str, seconds: float = 60) -> str:
    """Return what a docker command prints. Raises Stop with its error if it fails."""
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT
    )
    if done.returncode != 0:
        raise Stop(f"docker {' '.join(arguments[:3])}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def environment(release: str | None = None) -> dict[str, str]:
    """Return the environment for Compose; with a release, `uwsgi` means that one's image."""
    return {**os.environ, "RELEASE": release} if release else dict(os.environ)


def compose(files: Sequence[str], *arguments: str, release: str | None = None, seconds: float = 180) -> str:
    """Return what a docker compose command prints. Raises Stop with its error if it fails or takes too long."""
    command = compose_command(files, "--progress", "quiet", *arguments)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            env=environment(release),
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as slow:
        raise Stop(f"docker compose {' '.join(arguments)} took longer than {seconds:.0f} s") from slow
    if done.returncode != 0:
        killed = "\nIt was killed: most likely it met its memory limit (mem_limit in compose.yaml)." * (
            done.returncode == 137
        )
        raise Stop(f"{done.stderr.strip()}\n{done.stdout.strip()}{killed}".strip())
    return done.stdout


def run_release(files: Sequence[str], *command: str, release: str | None = None, seconds: float = 180) -> str:
    """Run the one-shot service `release`, or another command in its place, and return what it prints.

    Raises Stop as `compose` does.
    """
    return compose(files, "run", "--rm", "--no-deps", "-T", "release", *command, release=release, seconds=seconds)


def compose_command(files: Sequence[str], *arguments: str) -> list[str]:
    """Return a docker compose command on these files."""
    return ["docker", "compose", *(word for file in files for word in ("--file", file)), *arguments]


def config(files: Sequence[str]) -> dict[str, Any]:
    """Return the stack that these files and .env make. Raises Stop with Compose's own words if it refuses them."""
    told = subprocess.run(
        compose_command(files, "config", "--format", "json"), capture_output=True, text=True, check=False, cwd=ROOT
    )
    if told.returncode != 0:
        raise Stop(f"Compose refuses the settings; mend .env or the compose file it names:\n{told.stderr.strip()}")
    read: dict[str, Any] = json.loads(told.stdout)
    return read


def containers(*services: str) -> list[Container]:
    """Return the containers of these services (of all, if none is named), stopped ones included, by name."""
    ids = docker("ps", "--all", "--quiet", "--filter", f"label={PROJECT_LABEL}={project()}").split()
    # Not docker(): one that has gone meanwhile, as while Compose recreates it, is an error to Docker, not to us.
    inspected = subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True, check=False, cwd=ROOT)
    told = json.loads(inspected.stdout) if ids else []
    # `docker compose run` makes containers of a service, too, and `docker run` ones that carry the labels of
    # the image, the project's name among them; they are no part of what serves.
    found = [read(one) for one in told if one["Config"]["Labels"].get(ONE_OFF_LABEL) == "False"]
    return sorted((one for one in found if not services or one.service in services), key=lambda one: one.name)


def read(told: dict[str, Any]) -> Container:
    """Return a Container from what `docker inspect` says of it."""
    labels, state = told["Config"]["Labels"], told["State"]
    return Container(
        id=told["Id"],
        name=told["Name"].lstrip("/"),
        service=labels[SERVICE_LABEL],
        running=state["Running"],
        health=state.get("Health", {}).get("Status", "none"),
        started=state["StartedAt"],
        exit_code=state["ExitCode"],
        restarts=told["RestartCount"],
        out_of_memory=state["OOMKilled"],
        image=told["Image"],
        files=tuple(labels.get(FILES_LABEL, "").split(",")),
    )


def running_files() -> list[str] | None:
    """Return the files that made what is running (or stopped), None if there is nothing.

    Of two lists the longer: `make up-direct` adds a file to those that made the rest.
    """
    made = [list(one.files) for one in containers() if one.files != ("",)]
    return max(made, key=len) if made else None


def last_words(one: Container, lines: int = 15) -> str:
    """Return the end of a container's log, under a line that says how it is."""
    logs = subprocess.run(
        ["docker", "logs", "--tail", str(lines), one.id],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    ).stdout
    how = "running" if one.running else f"exit {one.exit_code}"
    killed = ", met its memory limit" * one.out_of_memory
    return f"\n--- {one.name} ({how}, {one.health}{killed}):\n{logs}"


def workers(service: str = "uwsgi") -> list[Container]:
    """Return the running containers of a service. Raises Stop if there is none."""
    found = [one for one in containers(service) if one.running]
    if not found:
        raise Stop(f"No {service} container is running. Start the stack: make up (TCP) or make up-unix")
    return found
