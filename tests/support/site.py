"""A copy of this repository with the probe in app/: what deploys are tried on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.checkout import Checkout
from tests.support.stack import ROOT
from tools.load import Load


class Site(Checkout):
    """A copy of this repository with the probe in app/, up and running."""

    def __init__(self, folder: Path, transport: str, role: str = "site") -> None:
        super().__init__(folder, f"{role}-{transport}")
        self.transport = transport
        self.environment |= {
            "UWSGI_MODULE": "probe.wsgi:application",
            # Two are busy with slow requests most of the time.
            "UWSGI_PROCESSES": "4",
            # A load is one client, and a fast one.
            "NGINX_REQUEST_RATE": "1000000r/s",
            "COMPOSE_FILE": "compose.yaml:compose.tcp.yaml:tests/overrides/quick.yaml",
        }
        self.restore()

    def restore(self) -> None:
        """Put the unbroken probe into app/."""
        shutil.rmtree(self.folder / "app")
        shutil.copytree(ROOT / "tests/probe", self.folder / "app", ignore=shutil.ignore_patterns("__pycache__"))

    def up(self, transport: str = "") -> None:
        """Start over a transport; this site's, if none is named."""
        self.made("up-tcp" if (transport or self.transport) == "tcp" else "up-unix")

    def serves_over(self) -> str:
        """Return the transport of a request."""
        return str(self.get("/echo").json()["meta"]["TRANSPORT"])

    def change(self, version: str) -> None:
        """Change the code, as a developer would before a deploy."""
        (self.folder / "app/probe/version.py").write_text(f'VERSION = "{version}"\n')

    def append(self, file: str, text: str) -> None:
        """Add lines to a file of the project."""
        with (self.folder / "app/probe" / file).open("a") as source:
            source.write(f"\n{text}\n")

    def under_way(self, *verb: str) -> subprocess.Popen[str]:
        """Return a verb under way, in a process group of its own."""
        return subprocess.Popen(
            ["make", *verb],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env={**os.environ, **self.environment},
            start_new_session=True,
        )

    def one_off(self) -> list[str]:
        """Return the names of the containers that run for one command only: checks, releases, trials."""
        return self.containers("", "--filter", "status=running", "--filter", "label=com.docker.compose.oneoff=True")

    def load(self) -> Load:
        """Return a load on this site."""
        # Light enough that several tests under load leave the deploys their share of two cores
        return Load("127.0.0.1", int(self.environment["HTTP_PORT"]), pause_seconds=0.03)

    def version(self) -> str:
        """Return the version that answers now."""
        return self.get("/version").text

    def running(self, service: str) -> list[str]:
        """Return the names of the containers of a service that run, without those that run for one command only."""
        return self.containers(
            service, "--filter", "status=running", "--filter", "label=com.docker.compose.oneoff=False"
        )

    def uwsgi(self) -> list[str]:
        """Return the names of the uwsgi containers that run."""
        return self.running("uwsgi")

    def releases(self) -> list[str]:
        """Return the lines of `make releases`."""
        return self.made("releases").splitlines()
