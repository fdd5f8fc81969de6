"""What must be true of new images before anything is replaced: each program reads, in them, what it will read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ops import change, stack
from ops.console import Stop

# Three imports of the project (itself, Django's checks, the list of migrations); one that hangs is found by this.
CHECK_SECONDS = 120
# uWSGI's own file, which names no place where requests come from: not the pool
SERVER = ("uwsgi", "--ini", "/etc/uwsgi/uwsgi.ini")
# Ends uWSGI once it has read its options, strictly, and before it loads the project: a project that hangs there, or
# takes too much memory, is found by the trial.
THEN_END = ("--hook-pre-app", "exit:0")
# Printed between the check of the project and the start of uWSGI
STARTS = "--- uWSGI starts"
NO_START = "Your project does not start"
KEEPS = "Nothing was changed; a running version keeps serving."


def project(files: Sequence[str], release: str) -> None:
    """Import the project with its real settings, run Django's checks, say which migrations it brings.

    Then have uWSGI read its options. In one container, since each costs half a second.
    """
    both = ("sh", "-euc", f'check_project.py --migrations; echo "{STARTS}"; exec "$@"', "sh", *SERVER, *THEN_END)
    try:
        output = stack.run_once(files, "release", *both, release=release, seconds=CHECK_SECONDS + 3 * stack.late())
    except Stop as stop:
        reason = str(stop).replace(f"{STARTS}\n", "").replace(STARTS, "").rstrip()
        what = "uWSGI does not start with uwsgi/uwsgi.ini and .env" if STARTS in str(stop) else NO_START
        raise Stop(f"{reason}\n\n{what} (above). {KEEPS}") from stop
    for line in output.partition(STARTS)[0].splitlines():
        print(f"    {line}")


def imported(files: Sequence[str]) -> None:
    """Import the project as it will run under `make up-direct`."""
    try:
        stack.run_once(files, "release", "check_project.py", seconds=CHECK_SECONDS + 3 * stack.late())
    except Stop as stop:
        raise Stop(f"{stop}\n\n{NO_START} (above). {KEEPS}") from stop


def nginx(files: Sequence[str], release: str) -> None:
    """Have nginx read its configuration, with the new settings and mounted files."""
    try:
        stack.run_once(files, "nginx", "nginx", "-t", release=release, seconds=CHECK_SECONDS)
    except Stop as stop:
        raise Stop(f"{stop}\n\nnginx refuses its configuration (above): nginx/ or .env. {KEEPS}") from stop


def socket_holder(config: dict[str, Any], service: str, image: str) -> None:
    """Start uWSGI as it holds a socket, without the volumes: it would take the place of the one that holds it now."""
    settings = config["services"][service]
    mounts = [
        word
        for entry in settings.get("configs", [])
        for word in ("--volume", f"{config['configs'][entry['source']]['file']}:{entry['target']}:ro")
    ]
    folders = [word for folder in ("/run/pool", "/run/wire") for word in ("--tmpfs", f"{folder}:mode=0777")]
    command = settings.get("command") or ["uwsgi", "--ini", f"/etc/uwsgi/{service}.ini"]
    labels = [f"{stack.PROJECT_LABEL}={stack.settings().project}", f"{stack.TRIAL_LABEL}=1"]
    marks = [word for label in labels for word in ("--label", label)]
    variables = [f"--env={name}={value}" for name, value in (settings.get("environment") or {}).items()]
    options = ["--rm", "--network", "none", "--user", settings["user"], *marks, *mounts, *folders, *variables]
    try:
        stack.docker("run", *options, image, *command, *THEN_END, seconds=CHECK_SECONDS)
    except Stop as stop:
        raise Stop(f"{stop}\n\n{service} does not start with sockets/ (above). {KEEPS}") from stop


def trial(files: Sequence[str], release: str) -> None:
    """Start the new release as it will run, but without the pool, until it is healthy on its own."""
    options = ["--detach", "--no-deps", "--label", f"{stack.TRIAL_LABEL}=1"]
    container = stack.compose(files, "run", *options, "uwsgi", *SERVER, release=release).split()[-1]
    try:
        stack.wait_for_new([container])
    finally:
        change.remove([container])
