"""What must be right before `make up` or `make deploy` changes anything."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import shutil
import socket
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from ops import needs, stack
from ops.console import ROOT, Stop, quiet
from uwsgi.build import layout

# What the images, their build stages and the archive of a bootstrapped base need together
ROOM_BYTES = 1_500_000_000
PACKAGE = re.compile(r"(build: *)?[a-z0-9][a-z0-9+.-]+")
# A line of .env or project.env
ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_]\w*)\s*=\s*(.*)")
COMMANDS = ("BUILD_COMMAND", "RELEASE_COMMAND")
# The environment of services uwsgi and release in the compose files, and what the image sets: these win over
# project.env.
SET_BY_THE_STACK = {
    "DATABASE_URL",
    "DJANGO_ALLOWED_HOSTS",
    "DJANGO_DEBUG",
    "DJANGO_HTTPS",
    "DJANGO_SECRET_KEY_FILE",
    "DJANGO_SETTINGS_MODULE",
    "PROJECT_MODULE",
    "RELEASE_COMMAND",
    "STATIC_ROOT",
    "TRANSPORT",
    "UWSGI_HARAKIRI",
    "UWSGI_MODULE",
    "UWSGI_PROCESSES",
    "UWSGI_THREADS",
}
# Those of them that .env cannot set either
NOT_IN_ENV = {"DJANGO_SECRET_KEY_FILE", "PROJECT_MODULE", "STATIC_ROOT", "TRANSPORT", "UWSGI_HARAKIRI"}
EVERY_ADDRESS = ("0.0.0.0", "::")
# Where a listener on every address can be reached from this machine
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
UNPRIVILEGED = "net.ipv4.ip_unprivileged_port_start"
RATE = "[1-9][0-9]{0,8}r/[sm]"
# Of each setting: what it must look like (several are separated by commas), in words, and an example
FORMS = {
    # No zero before it: uwsgi.ini compares UWSGI_THREADS with 1 as text.
    "UWSGI_PROCESSES": ("[1-9][0-9]{0,3}", "a number from 1", "2"),
    "UWSGI_THREADS": ("[1-9][0-9]{0,3}", "a number from 1", "1"),
    "NGINX_REQUEST_RATE": (RATE, "a rate", "50r/s"),
    "NGINX_LOGIN_RATE": (RATE, "a rate", "10r/m"),
    "NGINX_GZIP": ("on|off", "on or off", "on"),
    "REQUEST_SECONDS": ("[1-9][0-9]{0,4}", "a number of seconds", "30"),
    "UPLOAD_MAX": ("[1-9][0-9]{0,8}[kmgKMG]?", "a size", "10m"),
    "NGINX_HSTS": (r"max-age=[0-9]+(; *includeSubDomains)?(; *preload)?", "a time in seconds", "max-age=86400"),
    "DJANGO_ALLOWED_HOSTS": (
        # No spaces: a project that splits at the commas alone would refuse " www.example.com".
        r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]",
        "a host name (no scheme, port, space or *)",
        "example.com,localhost",
    ),
}


def check(config: dict[str, Any]) -> None:
    """Raise Stop with everything that is wrong, each with its fix."""
    nginx, environment = (config["services"][service]["environment"] for service in ("nginx", "uwsgi"))
    build = config["services"]["uwsgi"]["build"]
    app, arguments = Path(build["additional_contexts"]["app"]), build.get("args", {})
    modules = [arguments.get(name) or "" for name in ("UWSGI_MODULE", "DJANGO_SETTINGS_MODULE")]
    problems = [
        *project_problems(app, *modules, image=arguments.get("BASE_IMAGE") or ""),
        *package_problems(app / "apt-packages.txt"),
        *variable_problems(stack.settings().project_env, stack.settings().variables),
        *dollar_problems(ROOT / ".env", stack.settings().variables),
        *dollar_problems(ROOT / stack.settings().project_env, stack.settings().variables),
        *form_problems({**nginx, **environment}),
        *proxy_problems(nginx["NGINX_TRUSTED_PROXIES"]),
        *secret_problems(Path(config["secrets"]["django_secret_key"]["file"])),
        *mounted_file_problems([Path(entry["file"]) for entry in config["configs"].values()]),
        *port_problems(config["services"]),
        *subnet_problems(config.get("networks") or {}),
        *disk_problems(),
    ]
    if problems:
        raise Stop("\n".join(["Nothing was changed. Fix first:", *(f"  - {problem}" for problem in problems)]))


def project_problems(app: Path, module: str = "", settings: str = "", *, image: str = "") -> list[str]:
    """Return which part of the project cannot be found (uwsgi/build/layout.py), or that it excludes this Python."""
    shown = app.relative_to(ROOT) if app.is_relative_to(ROOT) else app
    if not app.is_dir():
        return [f"{shown} is not a folder. Name the one of your project in .env: PROJECT_DIR="]
    try:
        parts = layout.find(app, module, settings)
    except layout.Unclear as unclear:
        return [f"{shown}/ {unclear}"]
    found = [*needs.left_out_findings(app, parts), *needs.python_findings(app, parts, image)]
    return [f"{app / finding.place} {finding.text}" for finding in found if finding.level == needs.BREAKS]


def variable_problems(file: str, names: AbstractSet[str]) -> list[str]:
    """Return the variables of project.env that would have no effect, or one on uWSGI."""
    return [
        f"{file} sets {name}, which the stack itself sets for every project. "
        + (
            "Remove the line; if it is meant for your project, rename it"
            if name in NOT_IN_ENV
            else "Move the line to .env"
        )
        for name in sorted(names & SET_BY_THE_STACK)
    ] + [
        f"{file} sets {name}: uWSGI takes every name that begins with UWSGI_ for an option of its own. "
        "Put options into uwsgi/uwsgi.ini; give a variable of your project another name"
        for name in sorted(names - SET_BY_THE_STACK)
        if name.startswith("UWSGI_")
    ]


def dollar_problems(file: Path, names: AbstractSet[str]) -> list[str]:
    """Return the values of an environment file that Compose would shorten: in them, $word is a variable."""
    problems = []
    lines = file.read_text().splitlines() if file.is_file() else []
    known = {*names, *os.environ, *(match[1] for line in lines if (match := ASSIGNMENT.match(line)))}
    for number, line in enumerate(lines, 1):
        match = ASSIGNMENT.match(line)
        if not match or match[2].startswith("'"):
            continue
        # The shell that runs a command has variables of its own.
        meant = set() if match[1] in COMMANDS else known
        lost = {*re.findall(r"(?<![$\\])\$\{?([A-Za-z_]\w*)", match[2])} - meant
        if lost:
            problems.append(
                f"{file.name}, line {number}: in {match[1]}, ${min(lost)} would be replaced, by its value here or by "
                f"nothing. For a $ as it is, use single quotes: {match[1]}='...'"
            )
    return problems


def package_problems(file: Path) -> list[str]:
    """Return the lines of apt-packages.txt that name no Debian package."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return [
        f"{file}, line {number}: {line!r} is not a package name. Write libpq5, or build: libpq-dev"
        for number, line in enumerate(lines, 1)
        if line and not line.startswith("#") and not PACKAGE.fullmatch(line)
    ]


def form_problems(environment: Mapping[str, str]) -> list[str]:
    """Return the settings that uWSGI or nginx would not accept."""
    return [
        f"{name} has {value!r}, not {words}. Set it in .env: {name}={example}"
        for name, (form, words, example) in FORMS.items()
        for value in environment[name].split(",")
        if not re.fullmatch(form, value)
    ]


def proxy_problems(proxies: str) -> list[str]:
    """Return what is not an address or network, and what would let every client forge its address."""
    problems = []
    for name in filter(None, proxies.split(",")):
        try:
            everyone = ipaddress.ip_network(name.strip()).prefixlen == 0
        except ValueError as wrong:
            problems.append(f"TRUSTED_PROXIES: {wrong}. Set it in .env: TRUSTED_PROXIES=10.0.0.5,10.1.0.0/16")
            continue
        if everyone:
            problems.append(
                f"TRUSTED_PROXIES has {name}: every client could forge its address. "
                "Name only your proxy in .env: TRUSTED_PROXIES=10.0.0.5"
            )
    return problems


def secret_problems(key: Path) -> list[str]:
    """Return what is wrong with Django's secret key."""
    if not key.is_file():
        return [f"{key} is missing. Have it made: ops/run setup"]
    if not key.read_text().strip():
        return [f"{key} is empty. Put your key back, or have a new one made: rm {key} && ops/run setup"]
    return []


def mounted_file_problems(files: list[Path]) -> list[str]:
    """Return the mounted files that a container's user may not read, as after a clone under umask 077."""
    missing = [file for file in files if not file.is_file()]
    return [
        *(f"{file} is missing. It is named in .env, or in a file of COMPOSE_FILE" for file in missing),
        *(
            f"{file} cannot be read by others. Run: chmod o+r {file}"
            for file in files
            if file not in missing and not file.stat().st_mode & 4
        ),
    ]


def port_problems(services: dict[str, Any]) -> list[str]:
    """Return the ports that cannot be bound, each with what to do."""
    held = {place for container in stack.containers() if container.running for place in container.bound}
    problems, seen = [], dict[int, str]()
    for service, settings in services.items():
        for setting, (address, port) in bound(service, settings):
            if port in seen:
                problems.append(
                    f"{seen[port]} and {setting} in .env are both {port}. Set another: {setting}={port + 1}"
                )
            elif not any(overlap((address, port), own) for own in held):
                problems += filter(None, [port_problem(address, port, setting, settings)])
            seen[port] = setting
    return problems


def subnet_problems(networks: Mapping[str, Any]) -> list[str]:
    """Return the networks that exist with another subnet than is asked for: Docker changes none that exists."""
    problems = []
    form = "{{range .IPAM.Config}}{{.Subnet}} {{end}}"
    for name, network in networks.items():
        wanted = {entry["subnet"] for entry in (network.get("ipam") or {}).get("config") or [] if "subnet" in entry}
        there = quiet(["docker", "network", "inspect", "--format", form, network["name"]]) if wanted else ""
        if there and there.strip() and wanted != {*there.split()}:
            problems.append(
                f"network {name} has the subnet {there.strip()}, and {', '.join(sorted(wanted))} is asked for "
                "(EDGE_SUBNET in .env). Docker gives it to a new network only. Type: make down, then this command again"
            )
    return problems


def overlap(first: tuple[str, int], other: tuple[str, int]) -> bool:
    """Return whether two listeners would be in each other's way."""
    return first[1] == other[1] and (first[0] == other[0] or not {first[0], other[0]}.isdisjoint(EVERY_ADDRESS))


def port_problem(address: str, port: int, setting: str, settings: dict[str, Any]) -> str:
    """Return why a service cannot bind this address and port, and what to do; nothing if it can."""
    shown = stack.shown(address, port)
    why = refusal(address, port)
    if why == errno.EADDRINUSE or (why == errno.EACCES and answers(address, port)):
        fix = f"Stop it, or set another in .env: {setting}={port + 1}"
        return f"{shown} is in use by another program (see: ss -ltnp). {fix}"
    if why == errno.EADDRNOTAVAIL:
        return f"{address} is not an address of this machine (see: ip address). Set another in .env: HTTP_ADDRESS="
    # Docker publishes ports with root's rights, also for other users; only a rootless one does not.
    if why == errno.EACCES and (settings.get("network_mode") == "host" or "rootless" in stack.security_options()):
        return (
            f"{shown} is below the ports that programs without root's rights may bind. Allow it, as root: "
            f"sysctl -w {UNPRIVILEGED}={port}; or set another in .env: {setting}={port + 8000}"
        )
    return ""


def bound(service: str, settings: dict[str, Any]) -> list[tuple[str, tuple[str, int]]]:
    """Return the addresses and ports of this machine that a service binds, each after its setting in .env."""
    if settings.get("network_mode") == "host":
        places = stack.host_listen(settings.get("environment", {}))
        return [(setting_of(service, name == stack.HOST_LISTEN_HTTPS), place) for name, place in places.items()]
    return [
        (
            setting_of(service, port["target"] == stack.HTTPS_TARGET),
            (port.get("host_ip", "0.0.0.0"), int(port["published"])),
        )
        for port in settings.get("ports", [])
    ]


def setting_of(service: str, https: bool) -> str:
    """Return the setting in .env for a published port."""
    return "DIRECT_PORT" if service == "direct" else "HTTPS_PORT" if https else "HTTP_PORT"


def refusal(address: str, port: int) -> int:
    """Return the error with which this machine refuses a listener at this address and port, 0 if it does not."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as problem:
            return problem.errno or 0
    return 0


def answers(address: str, port: int) -> bool:
    """Return whether something accepts connections there."""
    try:
        socket.create_connection((LOOPBACK.get(address, address), port), timeout=1).close()
    except OSError:
        return False
    return True


def disk_problems() -> list[str]:
    """Return whether the disk on which Docker keeps its images is too full for a build."""
    root = stack.root_folder()
    free = shutil.disk_usage(root).free if root.exists() else ROOM_BYTES
    if free >= ROOM_BYTES:
        return []
    return [
        f"{root} has {free / 1e9:.1f} GB left of the {ROOM_BYTES / 1e9:.1f} GB a build needs. "
        "See what Docker holds: docker system df; remove its build cache: docker builder prune"
    ]
