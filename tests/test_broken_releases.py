"""A broken release never takes a request, and leaves everything as it was."""

from __future__ import annotations

import pytest

from tests.support.breaks import BREAKS, Break, failing_migration
from tests.support.site import Site
from tests.support.stack import run


@pytest.mark.one_transport
@pytest.mark.parametrize(
    "broken",
    [pytest.param(way, id=way.name, marks=[pytest.mark.slow] * (way.do != failing_migration)) for way in BREAKS],
)
def test_a_broken_release_never_takes_a_request(site: Site, broken: Break) -> None:
    before, releases, version = site.containers(), site.releases(), site.version()
    try:
        with site.load() as load:
            broken.do(site)
            site.change("broken")
            answer = site.refused("deploy")
            assert site.version() == version
    finally:
        site.restore()
    assert broken.message in answer
    assert load.lost() == []
    assert site.containers() == before
    assert site.releases() == releases
    # What is called latest is still what serves: a later `make up` brings no surprise.
    latest, serving = (
        run("docker", "inspect", "--format", field, name).stdout
        for field, name in (("{{.Id}}", f"{site.project}-uwsgi:latest"), ("{{.Image}}", site.uwsgi()[0]))
    )
    assert latest == serving
