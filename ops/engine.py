"""Docker Engine, Compose and Buildx: present, new enough and running."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from pathlib import Path

from ops.console import Stop, quiet, step

# What Debian stable (trixie) ships, so that `apt install` is enough there.
FLOOR = {"Docker Engine": (26, 1), "Compose": (2, 26), "Buildx": (0, 13)}
ASK = {
    "Docker Engine": ["docker", "version", "--format", "{{.Server.Version}}"],
    "Compose": ["docker", "compose", "version", "--short"],
    "Buildx": ["docker", "buildx", "version"],
}
DAEMON_LOG = Path("/var/log/dockerd.log")
START_SECONDS = 60

# The mirror is the one this machine already uses for its own release: no host is written here.
FROM_TRIXIE = """\
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
printf 'Types: deb\\nURIs: %s\\nSuites: trixie\\nComponents: main\\nSigned-By: %s\\n' "$mirror" \
/usr/share/keyrings/debian-archive-keyring.gpg >/etc/apt/sources.list.d/docker-from-trixie.sources
cp ops/docker-from-trixie.pref /etc/apt/preferences.d/"""
# --no-remove: apt would remove another vendor's Docker, with every container that it runs.
INSTALL = "apt-get install --yes --no-remove --no-install-recommends ca-certificates iptables"
DEBIAN = f"{INSTALL} docker.io docker-cli docker-buildx docker-compose"
UBUNTU = f"{INSTALL} docker.io docker-buildx docker-compose-v2"


def ensure() -> None:
    """Make sure that the three are there and running; install and start them if this is allowed.

    Raises Stop, with the commands to type, before it has changed anything.
    """
    if not lacking():
        return
    refuse_what_is_not_ours()
    if shutil.which("dockerd") is None:
        install()
    if version("Docker Engine") is None:
        start()
    if still := lacking():
        raise Stop(
            f"Docker is still not usable: {'; '.join(still)}.\n"
            f"Look at {DAEMON_LOG} or `journalctl -u docker`, or install it as Docker's own documentation says."
        )


def version(part: str) -> tuple[int, ...] | None:
    """Return the version of a part as numbers, None if it does not answer."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", quiet(ASK[part]) or "")
    return tuple(int(number) for number in found.groups(default="0")) if found else None


def lacking() -> list[str]:
    """Return one phrase for each part that is missing or too old."""
    found = {part: version(part) for part in FLOOR}
    return [
        f"{part} {dotted(floor)} or newer (found: {dotted(has) if has else 'no answer'})"
        for part, floor in FLOOR.items()
        if (has := found[part]) is None or has < floor
    ]


def dotted(version: tuple[int, ...]) -> str:
    """Return a version as it is written."""
    return ".".join(map(str, version))


def too_old() -> bool:
    """Return whether a part is absent or below the floor (an engine that is only stopped is not)."""
    found = {part: version(part) for part in FLOOR}
    return any(has < FLOOR[part] if has else part != "Docker Engine" for part, has in found.items())


def refuse_what_is_not_ours() -> None:
    """Raise Stop where the user has to act: an engine on another host, missing rights, an unknown system."""
    needs = f"This needs {'; '.join(lacking())}."
    if host := os.environ.get("DOCKER_HOST"):
        raise Stop(f"{needs}\nDOCKER_HOST is {host}. Start or update the engine there, or: unset DOCKER_HOST")
    if "podman" in (quiet(["docker", "--version"]) or "").lower():
        raise Stop(f"{needs}\n`docker` is Podman on this machine, with which this is not tested. Use one with Docker.")
    steps = commands()
    if shutil.which("dockerd") and too_old():
        debian = steps and quiet(["dpkg-query", "--show", "docker.io"]) is not None
        how = "\n".join(command for _, command in steps) if debian else "Update it as Docker's own documentation says."
        raise Stop(
            f"{needs}\nDocker is installed, and an update stops every container of this machine for a moment. So it is "
            f"yours to do, as root, in this folder:\n{how}"
        )
    if os.geteuid() == 0 and steps:
        return
    socket = Path("/var/run/docker.sock")
    if socket.exists() and not os.access(socket, os.W_OK):
        raise Stop(
            f"{needs}\nYour user may not use the Docker that is installed. Run:\n"
            '  sudo usermod --append --groups docker "$USER"\nthen log in again.'
        )
    if not steps:
        raise Stop(
            f"{needs}\nThis is neither Debian 12 or newer nor Ubuntu, so it is not installed for you. "
            "Install Docker Engine with its compose and buildx plugins, then start again."
        )
    lines = "\n".join([*(command for _, command in steps), "systemctl enable --now docker"])
    raise Stop(f"{needs}\nRun make as root (sudo), or type these as root, in this folder:\n{lines}")


def commands() -> list[tuple[str, str]]:
    """Return title and shell command of each step that installs Docker here, none if unknown."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return []
    lists = ("Reading the package lists", "apt-get update")
    if release["ID"] == "debian" and release.get("VERSION_CODENAME") == "bookworm":
        pin = ("Adding Debian 13, for Docker's packages only", FROM_TRIXIE)
        return [lists, pin, lists, ("Installing Docker from Debian 13", DEBIAN)]
    if release["ID"] == "debian" and int(release.get("VERSION_ID", "99")) >= 13:
        return [lists, ("Installing Docker", DEBIAN)]
    if release["ID"] == "ubuntu":
        return [lists, ("Installing Docker", UBUNTU)]
    return []


def install() -> None:
    """Install the packages of this distribution."""
    print("Docker is missing or too old: installing it")
    for title, command in commands():
        step(title, command)


def start() -> None:
    """Start the engine, by the service manager or else detached, and wait until it answers."""
    print("Starting the Docker engine")
    if Path("/run/systemd/system").exists():
        quiet(["systemctl", "enable", "--now", "docker"], seconds=START_SECONDS)
    # Debian's init script raises limits, which a container may not: then it fails, and we go on.
    elif quiet(["service", "docker", "start"], seconds=START_SECONDS) is None:
        with DAEMON_LOG.open("ab") as log:
            subprocess.Popen(
                ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
            )
    deadline = time.monotonic() + START_SECONDS
    while version("Docker Engine") is None:
        if time.monotonic() > deadline:
            end = DAEMON_LOG.read_text(errors="replace").splitlines()[-5:] if DAEMON_LOG.exists() else []
            first = f"The Docker engine did not answer within {START_SECONDS} s. The end of {DAEMON_LOG}:"
            raise Stop("\n".join([first, *end]))
        time.sleep(0.2)
