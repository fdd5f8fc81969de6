"""Projects of other shapes than the sample: each is put into app/, built and served, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.site import Site
from tests.support import run

pytestmark = pytest.mark.xdist_group("bad-input")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A copy of this repository with the probe in app/, not yet started."""
    made = Site(tmp_path, "tcp")
    made.project += "-shape"
    made.environment["COMPOSE_PROJECT_NAME"] = made.project
    try:
        yield made
    finally:
        made.remove()


def test_a_requirement_that_is_compiled_against_a_debian_library(site: Site) -> None:
    app = site.folder / "app"
    (app / "requirements.txt").write_text("Django~=6.1.0\npsycopg2==2.9.11\n")
    (app / "apt-packages.txt").write_text("# PostgreSQL's client\nlibpq5\nbuild: libpq-dev\n")
    site.append("wsgi.py", "import psycopg2  # noqa: E402, F401")
    site.up()
    assert site.version() == "first"
    container = site.uwsgi()[0]
    assert run("docker", "exec", container, "dpkg-query", "--show", "libpq5").returncode == 0
    assert run("docker", "exec", container, "dpkg-query", "--show", "libpq-dev").returncode != 0
    assert run("docker", "exec", container, "sh", "-c", "command -v gcc").returncode != 0
    setuid = run("docker", "exec", container, "find", "/usr", "-xdev", "-type", "f", "-perm", "/6000")
    assert setuid.stdout == ""
