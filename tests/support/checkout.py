"""A copy of this repository to type the README's commands in, as a newcomer would."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import requests

from tests.support.stack import CHECKOUT, ROOT, free_port, run, wait_for_networks


class Checkout:
    """The files that git would give a newcomer, in a folder and under a project name of their own."""

    def __init__(self, folder: Path, role: str) -> None:
        self.folder = folder
        self.project = f"test-{CHECKOUT}-{role}"
        self.environment = {
            "COMPOSE_PROJECT_NAME": self.project,
            "HTTP_PORT": str(free_port()),
            "DIRECT_PORT": str(free_port()),
        }
        listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z").stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Type a make command; its exit code is the caller's to judge."""
        wait_for_networks()
        return run("make", *arguments, seconds=280, cwd=self.folder, environment={**self.environment, **environment})

    def made(self, *arguments: str) -> str:
        """Type a make command that must succeed and return what it prints."""
        done = self.make(*arguments)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def refused(self, *arguments: str, **environment: str) -> str:
        """Type a make command that must fail and return what it says; a traceback of ours is no message."""
        done = self.make(*arguments, **environment)
        assert done.returncode != 0, done.stdout
        assert "/ops/" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    def get(self, path: str = "/") -> requests.Response:
        """Send a GET to the published port."""
        return requests.get(f"http://localhost:{self.environment['HTTP_PORT']}{path}", timeout=20)

    def containers(self, service: str = "", *options: str) -> list[str]:
        """Return the names of the containers of a service, of all services if none is named; stopped ones included.

        `options` are further ones of `docker ps`.
        """
        labels = [f"label=com.docker.compose.project={self.project}"]
        labels += [f"label=com.docker.compose.service={service}"] * bool(service)
        filters = [word for label in labels for word in ("--filter", label)]
        return sorted(run("docker", "ps", "--all", *filters, *options, "--format", "{{.Names}}").stdout.split())

    def set(self, name: str, value: str) -> None:
        """Set a line in .env, as its owner would."""
        env = self.folder / ".env"
        if not env.exists():
            shutil.copy2(self.folder / ".env.example", env)
        lines = [line for line in env.read_text().splitlines() if not line.startswith(f"{name}=")]
        env.write_text("\n".join([*lines, f"{name}={value}", ""]))

    def remove(self) -> None:
        """Remove everything this checkout has started or built. Not by `make clean`, which waits for requests."""
        run("docker", "rm", "--force", "--volumes", *self.containers())
        mine = ("--quiet", "--filter", f"label=com.docker.compose.project={self.project}")
        for kind in ("network", "volume"):
            run("docker", kind, "rm", *run("docker", kind, "ls", *mine).stdout.split())
        images = run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
        run("docker", "image", "rm", "--force", *(name for name in images if name.startswith(f"{self.project}-")))
