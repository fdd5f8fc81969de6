"""The stack as Compose and Docker see it: its settings, its files, its images, its containers."""

from __future__ import annotations

import errno
import hmac
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ops.console import ROOT, Stop, run

TRANSPORTS = {"tcp": "compose.tcp.yaml", "unix-socket": "compose.unix-socket.yaml"}
DEVELOPMENT = "overrides/dev.yaml"
DIRECT = "overrides/direct.yaml"
PROJECT_LABEL = "com.docker.compose.project"
FILES_LABEL = "com.docker.compose.project.config_files"
FOLDER_LABEL = "com.docker.compose.project.working_dir"
SERVICE_LABEL = "com.docker.compose.service"
ONE_OFF_LABEL = "com.docker.compose.oneoff"
# Ours, on containers that run for one command of a verb
TRIAL_LABEL = "ops.trial"
MIGRATION_LABEL = "ops.migration"
CERTIFICATES = "certificates"
# Variables that say where the published port is bound with overrides/host-network.yaml; the first two in stacks of
# earlier versions
HOST_LISTEN = ("NGINX_LISTEN", "UWSGI_SOCKET", "HTTP_SOCKET")
HOST_LISTEN_HTTPS = "HTTPS_SOCKET"
# The port in the container that overrides/tls.yaml publishes
HTTPS_TARGET = 8443
# With them, the containerd image store gives every cached build a new id, and Compose replaces all containers.
NO_ATTESTATIONS = "BUILDX_NO_DEFAULT_ATTESTATIONS=1"
# Compose reads .env and project.env for us: it fills in this file and prints the result.
SETTINGS = """
x-settings:
  files: ${COMPOSE_FILE:-compose.yaml:compose.tcp.yaml}
  app: ${PROJECT_DIR:-./app}
  module: ${UWSGI_MODULE:-}
  settings_module: ${DJANGO_SETTINGS_MODULE:-}
  start_seconds: ${START_SECONDS:-60}
  project_env: ${PROJECT_ENV:-project.env}
  python_image: ${PYTHON_IMAGE:-debian:trixie-slim}
services:
  project:
    image: none
    env_file: [{path: "${PROJECT_ENV:-project.env}", required: false}]
    # As in compose.yaml: Compose refuses what is no number of seconds.
    healthcheck: {test: [NONE], start_period: "${START_SECONDS:-60}s"}
"""
# Docker itself calls a container unhealthy (start_period, retries); this only bounds the waiting. Like every such bound
# it is for START_SECONDS=60; `late` adds what is above that.
HEALTHY_SECONDS = 180
# What Docker itself may take to stop containers, apart from the stop_grace_period of each
STOP_SECONDS = 60
KILLED = "\nIt was killed, most likely at its memory limit (mem_limit in compose.yaml)."
NOT_BUILT = "An image did not build (above). Nothing was changed; a running version keeps serving."
# How Compose names a file that it may not read
UNREADABLE = re.compile(r"open (.+): permission denied")
# Of the step that failed: what pip prints of a package that does not compile
BUILD_LINES = 80


@dataclass(frozen=True)
class Settings:
    """The settings that ops itself acts on, with the defaults of compose.yaml."""

    project: str = ""
    files: str = f"compose.yaml:{TRANSPORTS['tcp']}"
    # The project's folder, and the modules that .env names, if it does
    app: str = "./app"
    module: str = ""
    settings_module: str = ""
    start_seconds: float = 60
    # The file with the project's own variables, and their names
    project_env: str = "project.env"
    variables: frozenset[str] = frozenset()
    # The Debian whose Python runs the project
    python_image: str = "debian:trixie-slim"

    def folder(self) -> Path:
        """Return the project's folder."""
        return Path(os.path.normpath(ROOT / Path(self.app).expanduser()))

    def shown(self) -> str:
        """Return the project's folder as messages name it."""
        return self.app.removeprefix("./").rstrip("/")


@dataclass(frozen=True)
class Container:
    """One container of the stack, as `docker inspect` describes it."""

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
    one_off: bool
    # TRIAL_LABEL, MIGRATION_LABEL
    marks: frozenset[str] = frozenset()
    folder: str = ""
    created: str = ""
    grace_seconds: int = 10
    # Volume, by where it is mounted
    volumes: Mapping[str, str] = field(default_factory=dict)
    # Address and port on this machine
    bound: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def read(cls, inspected: dict[str, Any]) -> Container:
        """Return the container that one element of `docker inspect` describes."""
        labels, state = inspected["Config"]["Labels"] or {}, inspected["State"]
        folder = labels.get(FOLDER_LABEL, "")
        return cls(
            id=inspected["Id"],
            name=inspected["Name"].lstrip("/"),
            service=labels.get(SERVICE_LABEL, ""),
            running=state["Running"],
            health=state.get("Health", {}).get("Status", "none"),
            started=state["StartedAt"],
            exit_code=state["ExitCode"],
            restarts=inspected["RestartCount"],
            out_of_memory=state["OOMKilled"],
            image=inspected["Image"],
            files=tuple(os.path.relpath(file, folder) for file in labels.get(FILES_LABEL, "").split(",") if file),
            # `docker compose run` also makes containers of a service, and `docker run` ones that carry the labels
            # of the image, the project's name among them; neither is part of what serves.
            one_off=labels.get(ONE_OFF_LABEL) != "False",
            marks=frozenset({TRIAL_LABEL, MIGRATION_LABEL} & labels.keys()),
            folder=folder,
            created=inspected["Created"],
            grace_seconds=inspected["Config"].get("StopTimeout") or 10,
            volumes={mount["Destination"]: mount.get("Name", "") for mount in inspected["Mounts"]},
            bound=frozenset(bound_by(inspected)),
        )


def bound_by(inspected: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Return the addresses and ports of this machine that a container was made with."""
    for bindings in (inspected["HostConfig"]["PortBindings"] or {}).values():
        yield from ((binding["HostIp"] or "0.0.0.0", int(binding["HostPort"] or 0)) for binding in bindings or [])
    if inspected["HostConfig"]["NetworkMode"] == "host":
        variables = dict(variable.partition("=")[::2] for variable in inspected["Config"]["Env"])
        yield from host_listen(variables).values()


def host_listen(variables: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Return the addresses and ports that a service binds on this machine's own network, by variable."""
    found = {}
    for name in (*HOST_LISTEN, *([HOST_LISTEN_HTTPS] if "HTTPS" in variables else [])):
        address, _, port = variables.get(name, "").rpartition(":")
        if port.isdigit():
            found[name] = (address.strip("[]"), int(port))
    return found


def shown(address: str, port: int) -> str:
    """Return an address and a port as they are written in a URL."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def settings() -> Settings:
    """Return the settings, read once for each environment (which overrides .env). Raises Stop as `config` does."""
    return read_settings(tuple(os.environ.items()))


@cache
def read_settings(_: tuple[tuple[str, str], ...]) -> Settings:
    """Return the settings as Compose reads them from the environment, .env and project.env."""
    document = config(["-"], SETTINGS)
    variables = document["services"]["project"].get("environment", {})
    return Settings(document["name"], **document["x-settings"], variables=frozenset(variables))


def late() -> float:
    """Return how many seconds longer than by default the project may take to start (START_SECONDS)."""
    return max(0.0, float(settings().start_seconds) - Settings.start_seconds)


def with_transport(files: Sequence[str], transport: str) -> list[str]:
    """Return `files` with this transport in place of the one they name; the others stay."""
    others = [file for file in files if file not in TRANSPORTS.values()]
    return [others[0], TRANSPORTS[transport], *others[1:]]


def with_override(files: Sequence[str], override: str) -> list[str]:
    """Return `files` with this override at their end, once."""
    return [*files] if includes(files, override) else [*files, override]


def includes(files: Sequence[str], name: str) -> bool:
    """Return whether one of these files, given by whatever path, is this one of the repository."""
    return any(Path(file).match(name) for file in files)


def transport_of(files: Sequence[str]) -> str:
    """Return the transport of these files, or `none`."""
    return next((transport for transport, file in TRANSPORTS.items() if includes(files, file)), "none")


def output_of(command: Sequence[str], seconds: float, prefix: str = "") -> str:
    """Return what a command prints. Raises Stop with its error if it fails or takes too long."""
    try:
        result = run(command, seconds)
    except subprocess.TimeoutExpired as slow:
        raise Stop(f"{' '.join(command)} took longer than {seconds:.0f} s") from slow
    if result.returncode != 0:
        killed = KILLED if result.returncode == 137 else ""
        raise Stop(f"{prefix}{result.stderr.strip()}\n{result.stdout.strip()}{killed}".strip())
    return result.stdout


def docker(*arguments: str, seconds: float = 60) -> str:
    """Return what a docker command prints. Raises Stop as `output_of` does."""
    return output_of(["docker", *arguments], seconds, prefix=f"docker {' '.join(arguments[:3])}: ")


def security_options() -> str:
    """Return what the engine says of how it runs, `rootless` among it."""
    return docker("info", "--format", "{{.SecurityOptions}}")


def compose_command(files: Sequence[str], *arguments: str, release: str | None = None) -> list[str]:
    """Return a docker compose command on these files; with a release, the images are those under its tag."""
    environment = [NO_ATTESTATIONS, *([f"RELEASE={release}"] if release else [])]
    return [
        "env",
        *environment,
        "docker",
        "compose",
        *(word for file in files for word in ("--file", file)),
        *arguments,
    ]


def compose(files: Sequence[str], *arguments: str, release: str | None = None, seconds: float = 180) -> str:
    """Return what a docker compose command prints. Raises Stop as `output_of` does."""
    return output_of(compose_command(files, "--progress", "quiet", *arguments, release=release), seconds)


def run_once(
    files: Sequence[str],
    service: str,
    *command: str,
    release: str | None = None,
    seconds: float = 180,
    label: str = TRIAL_LABEL,
) -> str:
    """Run a command in a container of a service that is removed after it, and return what it prints.

    Raises Stop as `output_of` does.
    """
    options = ["--rm", "--no-deps", "-T", "--label", f"{label}=1"]
    return compose(files, "run", *options, service, *command, release=release, seconds=seconds)


def images(names: Iterable[str]) -> dict[str, str]:
    """Return the ids of those of these images that are on this machine."""
    wanted = sorted(set(names))
    found = json.loads(run(["docker", "image", "inspect", *wanted]).stdout or "[]") if wanted else []
    return {tag: image["Id"] for image in found for tag in image["RepoTags"] or []}


def config(files: Sequence[str], text: str = "") -> dict[str, Any]:
    """Return the stack that these files and .env make; a file `-` is `text`.

    Raises Stop with Compose's message, or PermissionError if a file that it reads is another user's.
    """
    result = run(compose_command(files, "config", "--format", "json"), 60, text=text)
    if result.returncode != 0:
        if refused := UNREADABLE.search(result.stderr):
            raise PermissionError(errno.EACCES, "Permission denied", refused[1])
        raise Stop(f"Compose refuses the settings. Fix .env or the compose file it names:\n{result.stderr.strip()}")
    read: dict[str, Any] = json.loads(result.stdout)
    return read


def build(files: Sequence[str], *arguments: str, release: str | None = None) -> None:
    """Build the images of these files, or of some services. On a terminal Compose shows its progress.

    Elsewhere nothing is shown but, if it fails, the last lines of the step that failed. Raises Stop then.
    """
    environment = build_environment(config(files))
    if sys.stdout.isatty():
        command = compose_command(files, "build", *arguments, release=release)
        failed = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}).returncode != 0
        reason = ""
    else:
        command = compose_command(files, "--progress", "plain", "build", *arguments, release=release)
        result = run(command, merged=True, environment=environment)
        failed, reason = result.returncode != 0, failed_step(result.stdout)
    if failed:
        raise Stop(f"{reason}\n\n{NOT_BUILT}".strip())


def build_environment(config: dict[str, Any]) -> dict[str, str]:
    """Return the variables with which a build gets the environment that its containers will have.

    BUILD_ENVIRONMENT is a secret of the build. The digest, which is kept in the image's history, has the secret key in
    it, so that no one can find a short password by trying.
    """
    # Compose writes every $ twice.
    variables = {
        name: value if value is None else str(value).replace("$$", "$")
        for name, value in config["services"]["uwsgi"]["environment"].items()
    }
    text = json.dumps(variables, sort_keys=True)
    key = Path(config["secrets"]["django_secret_key"]["file"])
    digest = hmac.new(key.read_bytes() if key.is_file() else b"", text.encode(), "sha256").hexdigest()
    return {"BUILD_ENVIRONMENT": text, "ENVIRONMENT_DIGEST": digest[:16]}


def failed_step(output: str) -> str:
    """Return the end of what the failing step of a build printed; of all output, if no step is marked as failed."""
    failed = re.search(r"^#(\d+) ERROR", output, re.MULTILINE)
    lines = re.findall(rf"^#{failed[1]} (?:[\d.]+ )?(.*)", output, re.MULTILINE) if failed else output.splitlines()
    return "\n".join(lines[-BUILD_LINES:])


def root_folder() -> Path:
    """Return the folder with Docker's images and volumes; one that does not exist here is in a virtual machine."""
    return Path(docker("info", "--format", "{{.DockerRootDir}}").strip())


def containers(*services: str) -> list[Container]:
    """Return the containers of these services (of all, if none is named), stopped ones included, by name."""
    found = [container for container in all_containers() if not container.one_off]
    return [container for container in found if not services or container.service in services]


def all_containers() -> list[Container]:
    """Return the containers of this project, with those that run for one command only, by name."""
    return inspect(docker("ps", "--all", "--quiet", "--filter", f"label={PROJECT_LABEL}={settings().project}").split())


def inspect(ids: Sequence[str]) -> list[Container]:
    """Return those of these containers that still exist, by name."""
    # Not docker(): one that has gone since, as while Compose recreates it, is an error to Docker, not to us.
    inspected = json.loads(run(["docker", "inspect", *ids], 60).stdout) if ids else []
    return sorted(map(Container.read, inspected), key=lambda container: container.name)


def workers(service: str = "uwsgi") -> list[Container]:
    """Return the running containers of a service. Raises Stop if there is none."""
    running = [container for container in containers(service) if container.running]
    if not running:
        raise Stop(f"No {service} container is running. Start the stack: make up")
    return running


def entrance(config: dict[str, Any]) -> str:
    """Return the service that holds the published port."""
    return next(service for service in ("nginx-socket", "nginx") if service in config["services"])


def has_tls(config: dict[str, Any]) -> bool:
    """Return whether nginx serves the site over https."""
    return CERTIFICATES in config["services"]


def published(config: dict[str, Any], service: str) -> str:
    """Return the host and port at which a service can be reached from this machine: https, if it has that."""
    settings = config["services"][service]
    if settings.get("network_mode") == "host":
        places = host_listen(settings["environment"])
        return shown(*places.get(HOST_LISTEN_HTTPS, next(iter(places.values()))))
    targets = [port["target"] for port in settings["ports"]]
    port = HTTPS_TARGET if HTTPS_TARGET in targets else targets[0]
    host, _, number = docker("port", workers(service)[0].id, f"{port}/tcp").splitlines()[0].rpartition(":")
    return f"{'localhost' if host in ('0.0.0.0', '[::]') else host}:{number}"


def site(config: dict[str, Any]) -> str:
    """Return the address of the site. Over https it has the first of its names, which the certificate is for."""
    place = published(config, entrance(config))
    if not has_tls(config):
        return f"http://{place}/"
    names = config["services"]["nginx"]["environment"]["NGINX_SERVER_NAMES"]
    name, port = names.split(",")[0].strip().removeprefix("."), place.rpartition(":")[2]
    return f"https://{name}{'' if port == '443' else f':{port}'}/"


def end_of_log(container: Container, lines: int = 15) -> str:
    """Return the end of a container's log, under a line that says how the container is."""
    logs = run(["docker", "logs", "--tail", str(lines), container.id], merged=True).stdout
    state = "running" if container.running else f"exit {container.exit_code}"
    memory = ", reached its memory limit" if container.out_of_memory else ""
    return f"\n--- {container.name} ({state}, {container.health}{memory}):\n{logs}"


def all_healthy(found: Sequence[Container]) -> bool:
    """Return whether each of these containers is healthy."""
    return all(container.health == "healthy" for container in found)


def wait_healthy(
    look: Callable[[], Sequence[Container]],
    failed: Callable[[Container], bool],
    *,
    seconds: float,
    message: str,
    ready: Callable[[Sequence[Container]], bool] = all_healthy,
) -> None:
    """Look at containers again and again until they are `ready`.

    Raises Stop, with the end of the log of those that `failed` (or, after so many seconds, of all) and a message.
    """
    deadline = time.monotonic() + seconds
    while not ready(found := look()):
        wrong = found if time.monotonic() > deadline else [container for container in found if failed(container)]
        if wrong:
            raise Stop("\n".join([*map(end_of_log, wrong), message]))
        time.sleep(0.1)


def present(ids: Sequence[str]) -> list[Container]:
    """Return these containers. Raises Stop if one is gone."""
    found = inspect(ids)
    if len(found) < len(ids):
        raise Stop("A uwsgi container was removed while it started. Start the stack again: make up")
    return found


def stop_seconds(found: Iterable[Container]) -> int:
    """Return what it may take until these containers have stopped, one after the other."""
    return sum(container.grace_seconds for container in found) + STOP_SECONDS


def wait_for_new(
    ids: Sequence[str],
    message: str = "What is new does not become healthy (above). What served before keeps serving.",
    ready: Callable[[Sequence[Container]], bool] = all_healthy,
) -> None:
    """Wait until these containers, just started, are `ready`. Raises Stop with the end of the log of one that fails."""
    wait_healthy(
        lambda: present(ids),
        lambda container: not container.running or container.restarts > 0 or container.health == "unhealthy",
        seconds=HEALTHY_SECONDS + late(),
        message=message,
        ready=ready,
    )
