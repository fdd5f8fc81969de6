"""Deploy, rollback, scale, reload and restart lose no request."""

from __future__ import annotations

import re
import time

import pytest
import requests

from tests.support.breaks import add_migration
from tests.support.site import Site
from tests.support.stack import run, wait_until


@pytest.mark.slow_on_tcp
def test_deploys_and_rollback_lose_no_request(site: Site) -> None:
    holder = run("docker", "inspect", "--format", "{{.State.StartedAt}}", f"{site.project}-uwsgi-socket-1").stdout
    with site.load() as load:
        for number in range(2):
            site.change(f"release {number}")
            message = site.made("deploy")
            assert site.version() == f"release {number}"
            assert re.search(r"retirement of 1 +[\d.]+ s", message)
        began = time.monotonic()
        site.made("rollback")
        print(f"rollback: {time.monotonic() - began:.1f} s")
        assert site.version() == "release 0"
    assert load.lost() == []
    assert len(site.uwsgi()) == 1
    assert site.get("/echo").json()["meta"]["TRANSPORT"] == site.transport
    now = run("docker", "inspect", "--format", "{{.State.StartedAt}}", f"{site.project}-uwsgi-socket-1").stdout
    assert now == holder


@pytest.mark.slow
@pytest.mark.one_transport
def test_the_last_three_releases_are_kept_and_the_running_one_is_marked(site: Site) -> None:
    for number in range(3):
        site.change(f"kept {number}")
        site.made("deploy")
    lines = site.releases()
    assert len(lines) == 3
    assert [line.startswith("* ") for line in lines] == [True, False, False]
    site.made("rollback")
    assert [line.startswith("* ") for line in site.releases()] == [False, True, False]


@pytest.mark.slow
@pytest.mark.one_transport
def test_pending_migrations_are_named_and_run(site: Site) -> None:
    try:
        add_migration(site, "pass")
        assert "migrations to run: probe.0001_fails" in site.made("deploy")
        assert "migrations to run: none" in site.made("deploy")
    finally:
        site.restore()


@pytest.mark.slow
@pytest.mark.one_transport
def test_of_two_deploys_at_once_the_second_refuses(site: Site) -> None:
    site.change("first of two")
    first = site.under_way("deploy")
    try:
        wait_until(lambda: list(site.folder.glob(".*.lock")) and "build" in first.stdout.readline(), "its start", 60)  # type: ignore[union-attr]
        assert "Another change of this stack is under way. Wait until it ends, then: make deploy" in site.refused(
            "deploy"
        )
    finally:
        assert first.wait(120) == 0
    assert site.version() == "first of two"


@pytest.mark.slow
@pytest.mark.one_transport
def test_scaling_up_and_down_loses_no_request_and_deploy_keeps_the_number(site: Site) -> None:
    with site.load() as load:
        site.made("scale", "N=3")
        wait_until(
            lambda: len({site.get("/echo").json()["container"] for _ in range(30)}) == 3, "all three take part", 30
        )
        site.change("in three containers")
        site.made("deploy")
        assert len(site.uwsgi()) == 3
        site.made("scale", "N=1")
    assert load.lost() == []
    assert len(site.uwsgi()) == 1


@pytest.mark.slow
@pytest.mark.one_transport
@pytest.mark.parametrize("number", ["0", "-1", "two", "100000"])
def test_a_number_of_containers_that_cannot_be_is_refused(site: Site, number: str) -> None:
    message = site.refused("scale", f"N={number}")
    assert f"N is '{number}', not a number from 1 to " in message
    assert "MB (mem_limit)" in message
    assert len(site.uwsgi()) == 1


def test_reload_and_restart_lose_no_request(site: Site) -> None:
    with site.load() as load:
        site.made("reload")
        site.made("restart")
    assert load.lost() == []


@pytest.mark.slow
@pytest.mark.one_transport
def test_pages_of_the_old_release_keep_their_files(site: Site) -> None:
    def stylesheet() -> str:
        manifest = run("docker", "exec", site.uwsgi()[0], "cat", "/srv/static/staticfiles.json").stdout
        return "/static/" + str(re.findall(r'"(probe/style\.[0-9a-f]{12}\.css)"', manifest)[0])

    old = stylesheet()
    (site.folder / "app/static/probe/style.css").write_text("body { color: #654321; }\n")
    statuses: set[int] = set()
    deploy = site.under_way("deploy")
    while deploy.poll() is None:
        statuses.add(requests.get(f"http://localhost:{site.environment['HTTP_PORT']}{old}", timeout=5).status_code)
    assert deploy.stdout is not None
    assert deploy.returncode == 0, deploy.stdout.read()
    new = stylesheet()
    assert new != old
    assert statuses == {200}
    assert [site.get(address).status_code for address in (old, new)] == [200, 200]
    site.restore()
