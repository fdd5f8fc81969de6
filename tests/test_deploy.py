"""Deploy, rollback and scale lose no request; a broken release never takes one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
import requests

from tests.support.breaks import BREAKS, Break, failing_migration
from tests.support.site import Site
from tests.support.stack import run, wait_until
from tools.load import Load

pytestmark = pytest.mark.load


@pytest.fixture(scope="module")
def site(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The probe, deployed once."""
    made = Site(tmp_path_factory.mktemp("site"), transport)
    try:
        made.up()
        yield made
    finally:
        made.remove()


def lost(load: Load, least: int) -> list[str]:
    """Return the failures of a load that has ended, after checking that there was enough of it."""
    assert load.requests >= least, "too few requests to prove anything"
    return [f"{one.second:.1f} s: {one.request}: {one.reason}" for one in load.failures]


def test_deploys_and_rollback_lose_no_request(site: Site) -> None:
    holder = run("docker", "inspect", "--format", "{{.State.StartedAt}}", f"{site.project}-uwsgi-socket-1").stdout
    with site.load() as load:
        for number in range(2):
            site.change(f"release {number}")
            said = site.made("deploy")
            assert site.version() == f"release {number}"
            assert re.search(r"retirement of 1 +[\d.]+ s", said)
        began = time.monotonic()
        site.made("rollback")
        assert time.monotonic() - began < 10
        assert site.version() == "release 0"
    assert lost(load, 1_000) == []
    assert len(site.uwsgi()) == 1
    assert site.get("/echo").json()["meta"]["TRANSPORT"] == site.transport
    now = run("docker", "inspect", "--format", "{{.State.StartedAt}}", f"{site.project}-uwsgi-socket-1").stdout
    assert now == holder


def test_the_last_three_releases_are_kept_and_the_running_one_is_marked(site: Site) -> None:
    for number in range(3):
        site.change(f"kept {number}")
        site.made("deploy")
    lines = site.releases()
    assert len(lines) == 3
    assert [line.startswith("* ") for line in lines] == [True, False, False]
    site.made("rollback")
    assert [line.startswith("* ") for line in site.releases()] == [False, True, False]


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.name)
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
    assert broken.said in answer
    assert lost(load, 100) == []
    assert site.containers() == before
    assert site.releases() == releases
    # What is called latest is still what serves: a later `make up` brings no surprise.
    latest, serving = (
        run("docker", "inspect", "--format", field, name).stdout
        for field, name in (("{{.Id}}", f"{site.project}-uwsgi:latest"), ("{{.Image}}", site.uwsgi()[0]))
    )
    assert latest == serving


def test_pending_migrations_are_named_and_run(site: Site) -> None:
    try:
        failing_migration(site)
        file = site.folder / "app/probe/migrations/0001_fails.py"
        file.write_text(file.read_text().replace("raise RuntimeError('this migration fails')", "pass"))
        assert "migrations to run: probe.0001_fails" in site.made("deploy")
        assert "migrations to run: none" in site.made("deploy")
    finally:
        site.restore()


def deploying(site: Site) -> subprocess.Popen[str]:
    """Return a deploy under way, in a process group of its own."""
    return subprocess.Popen(
        ["make", "deploy"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=site.folder,
        env={**os.environ, **site.environment},
        start_new_session=True,
    )


def test_of_two_deploys_at_once_the_second_refuses(site: Site) -> None:
    site.change("first of two")
    first = deploying(site)
    try:
        wait_until(lambda: list(site.folder.glob(".*.lock")) and "build" in first.stdout.readline(), "its start", 60)  # type: ignore[union-attr]
        assert "Another change of this stack is under way. Wait until it ends, then: make deploy" in site.refused(
            "deploy"
        )
    finally:
        assert first.wait(120) == 0
    assert site.version() == "first of two"


@pytest.mark.parametrize("step", ["build ", "check ", "release ", "trial", "start of"])
def test_a_deploy_killed_at_any_step_is_ended_by_the_next(site: Site, step: str) -> None:
    site.change(f"killed after {step}")
    with site.load() as load:
        killed = deploying(site)
        assert killed.stdout is not None
        for line in killed.stdout:
            if line.strip().startswith(step):
                break
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait(10)
        assert site.uwsgi() != []
        site.made("deploy")
    assert lost(load, 100) == []
    assert site.version() == f"killed after {step}"
    assert len(site.uwsgi()) == 1
    assert len([name for name in site.containers() if "-uwsgi-" in name]) == 1


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
    assert lost(load, 300) == []
    assert len(site.uwsgi()) == 1


@pytest.mark.parametrize("number", ["0", "-1", "two", "100000"])
def test_a_number_of_containers_that_cannot_be_is_refused(site: Site, number: str) -> None:
    said = site.refused("scale", f"N={number}")
    assert f"N is '{number}', not a number from 1 to " in said
    assert "MB (mem_limit)" in said
    assert len(site.uwsgi()) == 1


def test_reload_and_restart_lose_no_request(site: Site) -> None:
    with site.load() as load:
        site.made("reload")
        site.made("restart")
    assert lost(load, 100) == []


def test_pages_of_the_old_release_keep_their_files(site: Site) -> None:
    def stylesheet() -> str:
        manifest = run("docker", "exec", site.uwsgi()[0], "cat", "/srv/static/staticfiles.json").stdout
        return "/static/" + str(re.findall(r'"(probe/style\.[0-9a-f]{12}\.css)"', manifest)[0])

    old = stylesheet()
    (site.folder / "app/static/probe/style.css").write_text("body { color: #654321; }\n")
    statuses: set[int] = set()
    deploy = deploying(site)
    while deploy.poll() is None:
        statuses.add(requests.get(f"http://localhost:{site.environment['HTTP_PORT']}{old}", timeout=5).status_code)
    new = stylesheet()
    assert new != old
    assert statuses == {200}
    assert [site.get(address).status_code for address in (old, new)] == [200, 200]
    site.restore()


def test_files_that_no_release_has_published_for_long_are_removed(site: Site) -> None:
    folder = f"{site.project}_static:/srv/published"
    image = f"{site.project}-uwsgi"
    aged = "cd /srv/published && echo old >old.0123456789ab.css && touch -d '31 days ago' old.0123456789ab.css"
    assert run("docker", "run", "--rm", "--volume", folder, image, "sh", "-c", aged).returncode == 0
    assert site.get("/static/old.0123456789ab.css").status_code == 200
    site.made("deploy")
    # nginx holds it open for 10 s (open_file_cache_valid).
    wait_until(lambda: site.get("/static/old.0123456789ab.css").status_code == 404, "the file is gone", 20)
    assert site.get("/static/probe/style.css").status_code == 200
