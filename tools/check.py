"""`make check`: linters, types, and every configuration as the program that will read it reads it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.stack import CHECKOUT, ROOT, run

BIN = Path(sys.executable).parent
TRANSPORTS = ("tcp", "unix-socket")
CAPABILITIES = ("dev", "direct", "log-file")
UNIX_SOCKET_ONLY = "host-network"


def listed(*patterns: str) -> list[str]:
    """Return the files of this repository that match, as git would add them."""
    return run("git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns).stdout.split()


def shell_scripts() -> list[str]:
    """Return the files whose first line calls a shell."""
    return [name for name in listed() if (ROOT / name).read_bytes()[:30].startswith((b"#!/bin/sh", b"#!/bin/bash"))]


def compose(transport: str, *capabilities: str) -> list[str]:
    """Return a docker compose command on these files, with tests/stack.env in the place of .env."""
    files = ["compose.yaml", f"compose.{transport}.yaml", *(f"overrides/{name}.yaml" for name in capabilities)]
    words = [word for file in files for word in ("--file", file)]
    return ["docker", "compose", "--env-file", "tests/stack.env", "--project-name", f"check-{CHECKOUT}", *words]


def static_checks() -> dict[str, list[str]]:
    """Return the checks that need no container, by name."""
    checks = {
        "ruff": [f"{BIN}/ruff", "check", "."],
        "ruff format": [f"{BIN}/ruff", "format", "--check", "."],
        "mypy": [
            f"{BIN}/mypy",
            "ops",
            "tests",
            "tools",
            "--exclude",
            "tests/(probe|projects)|tools/bench/project",
        ],
        "mypy uwsgi": [f"{BIN}/mypy", "--python-version", "3.13", *listed("sockets/*.py", "uwsgi/*.py")],
        "mypy app": [f"{BIN}/mypy", "--python-version", "3.13", "app/config", "app/home"],
        "shellcheck": [f"{BIN}/shellcheck", *shell_scripts()],
        "hadolint": [f"{BIN}/hadolint", *listed("*Dockerfile")],
        # A false alarm is silenced at its line (pragma: allowlist secret); the hashes of a lock are many.
        "secrets": [f"{BIN}/detect-secrets-hook", "--exclude-files", r"requirements\.txt$", *listed()],
        "yamllint": [f"{BIN}/yamllint", "--strict", *listed("*.yaml")],
    }
    for transport in TRANSPORTS:
        for extra in ((), *((name,) for name in CAPABILITIES), CAPABILITIES):
            checks[f"compose {' + '.join((transport, *extra))}"] = [*compose(transport, *extra), "config", "--quiet"]
    only = ("unix-socket", UNIX_SOCKET_ONLY)
    checks[f"compose {' + '.join(only)}"] = [*compose(*only), "config", "--quiet"]
    return checks


def failed(name: str, command: list[str]) -> bool:
    """Run one check, print its name and, if it fails, all it says."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=ROOT)
    print(f"{'FAIL' if done.returncode else 'ok  '}  {name}", flush=True)
    if done.returncode:
        print(done.stdout)
    return done.returncode != 0


def container_checks(transport: str) -> list[bool]:
    """Have nginx read its configuration, gixy judge it, and uWSGI start strictly, in the images themselves."""
    once = [*compose(transport), "run", "--rm", "--no-deps", "-T"]
    results = [failed(f"nginx -t {transport}", [*once, "nginx", "nginx", "-t"])]
    effective = ROOT / f".gixy-{transport}.conf"
    told = run(*once, "nginx", "nginx", "-T").stdout
    effective.write_text(told[told.index("# configuration file") :])
    # Below MEDIUM gixy speaks of taste. What it skips: `nofile` stands in compose.yaml, which gixy cannot see;
    # and without try_files, at the price of one stat, nginx tells which folders there are.
    skipped = "worker_rlimit_nofile_vs_connections,try_files_is_evil_too"
    judge = [f"{BIN}/gixy", "-ll", "--skips", skipped, str(effective)]
    results.append(failed(f"gixy {transport}", judge))
    effective.unlink()
    return results


def uwsgi_starts() -> bool:
    """Start uWSGI strictly on the sample project, until it has loaded it and would begin to serve."""
    command = [
        *compose("tcp"),
        "run",
        "--rm",
        "--no-deps",
        "-T",
        "--env",
        "UWSGI_MODULE=config.wsgi:application",
        "release",
        "uwsgi",
        "--ini",
        "/etc/uwsgi/uwsgi.ini",
        "--ini",
        "/etc/uwsgi/uwsgi.ini:direct",
        "--hook-master-start",
        "exec:kill -INT 1",
    ]
    return failed("uwsgi strict start", command)


def main() -> int:
    """Run every check and return 1 if any failed."""
    results = [failed(name, command) for name, command in static_checks().items()]
    results.append(failed("build", [*compose("tcp"), "build", "--quiet"]))
    if not results[-1]:
        for transport in TRANSPORTS:
            results += container_checks(transport)
        results.append(uwsgi_starts())
    run(*compose("tcp"), "down", "--volumes", "--remove-orphans", "--rmi", "local")
    print(f"{results.count(False)} passed, {results.count(True)} failed")
    return 1 if any(results) else 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
