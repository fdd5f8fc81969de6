"""`make check`: every configuration, read by the program that will read it. Needs Docker; the rest is `make lint`."""

from __future__ import annotations

import os
import sys
import tempfile
from itertools import combinations
from pathlib import Path

from tests.support import subnets
from tests.support.stack import CHECKOUT, run
from tools.lint import ROOT, Check, command, program, report, summary

PROJECT = f"check-{CHECKOUT}"
TRANSPORTS = ("tcp", "unix-socket")
CAPABILITIES = sorted(path.stem for path in (ROOT / "overrides").glob("*.yaml"))
# Below MEDIUM gixy speaks of taste. The limit on open files is in compose.yaml, which gixy cannot see; and without
# try_files, which saves one stat, nginx would tell which folders exist.
GIXY = ("-ll", "--skips", "worker_rlimit_nofile_vs_connections,try_files_is_evil_too")


def main() -> int:
    """Run every check and return 1 if one failed."""
    passed = report(
        {f"compose {' + '.join(names)}": command(*compose(*names), "config", "--quiet") for names in combined()}
    )
    os.environ.update(subnets.choose(), TEST_IMAGES=PROJECT)
    try:
        passed += report({"build": command(*probe("tcp"), "build", "--quiet")})
        if passed[-1]:
            # One after the other: each may create the networks.
            passed += report(in_the_images(), at_once=1)
    finally:
        for transport in TRANSPORTS:
            run(*probe(transport, "tls"), "down", "--volumes", "--remove-orphans", "--rmi", "local")
    return summary(passed)


def combined() -> list[tuple[str, ...]]:
    """Return each transport alone, with each capability, with any two, and with all."""
    found: dict[tuple[str, ...], None] = {}
    for transport in TRANSPORTS:
        for extra in ((), *combinations(CAPABILITIES, 1), *combinations(CAPABILITIES, 2), tuple(CAPABILITIES)):
            found[(transport, *extra)] = None
    return list(found)


def compose(transport: str, *capabilities: str) -> list[str]:
    """Return a docker compose command on these files, with tests/stack.env instead of .env."""
    files = ["compose.yaml", f"compose.{transport}.yaml", *(f"overrides/{name}.yaml" for name in capabilities)]
    words = [word for file in files for word in ("--file", file)]
    return ["docker", "compose", "--env-file", "tests/stack.env", "--project-name", PROJECT, *words]


def probe(transport: str, *capabilities: str) -> list[str]:
    """Return the same with the tests' project in the images: in a fork, app/ is a project that we do not know."""
    return [*compose(transport, *capabilities), "--file", "tests/overrides/test.yaml"]


def once(service: str, transport: str, *capabilities: str) -> list[str]:
    """Return a command that runs one container of a service, to which the words to run are added."""
    return [*probe(transport, *capabilities), "run", "--rm", "--no-deps", "-T", service]


def in_the_images() -> dict[str, Check]:
    """Return the checks in which nginx reads its configuration, gixy judges it, and uWSGI starts strictly."""
    found: dict[str, Check] = {}
    # With TLS nginx reads most of what an override gives it.
    for names in [(transport, *extra) for transport in TRANSPORTS for extra in ((), ("tls",))]:
        found[f"nginx -t {' + '.join(names)}"] = command(*once("nginx", *names), "nginx", "-t")
        found[f"gixy {' + '.join(names)}"] = gixy(*names)
    # Until the project is loaded and uWSGI would begin to serve.
    files = ("--ini", "/etc/uwsgi/uwsgi.ini", "--ini", "/etc/uwsgi/uwsgi.ini:direct")
    start = ("uwsgi", *files, "--hook-master-start", "exec:kill -INT 1")
    found["uwsgi strict start"] = command(*once("release", "tcp"), *start)
    return found


def gixy(*names: str) -> Check:
    """Return the check that gixy finds nothing in the configuration as nginx has put it together."""

    def check() -> str:
        printed = run(*once("nginx", *names), "nginx", "-T")
        _, mark, rest = printed.stdout.partition("# configuration file")
        if not mark:
            return printed.stdout + printed.stderr
        with tempfile.TemporaryDirectory() as folder:
            effective = Path(folder) / "nginx.conf"
            effective.write_text(mark + rest)
            return program("gixy", *GIXY, str(effective))()

    return check


if __name__ == "__main__":
    sys.exit(main())
