"""`make up` next to a running stack: what is wrong is refused and nothing is lost; what is right takes over."""

from __future__ import annotations

import pytest

from tests.support.breaks import WRONG, Break, add_migration, failing_migration, put_back
from tests.support.site import Site
from tests.support.stack import run


def tags(site: Site) -> list[str]:
    """Return the images of this site, each with its id."""
    shown = run("docker", "images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout
    return sorted(line for line in shown.splitlines() if line.startswith(f"{site.project}-"))


def ids(site: Site) -> list[str]:
    """Return the ids of the containers that run."""
    return run("docker", "ps", "--quiet", "--filter", f"label=com.docker.compose.project={site.project}").stdout.split()


@pytest.mark.one_transport
@pytest.mark.parametrize(
    "wrong",
    [pytest.param(way, id=way.name, marks=[pytest.mark.slow] * (way.do != failing_migration)) for way in WRONG],
)
def test_what_is_wrong_is_refused_and_no_request_is_lost(site: Site, wrong: Break) -> None:
    state = (site.folder / f".{site.project}.state.json").read_text()
    before = ids(site), tags(site), site.releases()
    try:
        with site.load() as load:
            wrong.do(site)
            answer = site.refused("up")
    finally:
        put_back(site)
    assert wrong.message in answer
    assert load.lost() == []
    assert (ids(site), tags(site), site.releases()) == before
    assert (site.folder / f".{site.project}.state.json").read_text() == state


@pytest.mark.slow
@pytest.mark.one_transport
def test_new_code_and_a_slow_migration_lose_no_request(site: Site) -> None:
    try:
        add_migration(site, "__import__('time').sleep(8)")
        site.change("after a slow migration")
        with site.load() as load:
            message = site.made("up")
        assert load.lost() == []
        assert site.version() == "after a slow migration"
        assert "the database before them: /data/backup/20" in message
        copies = run("docker", "exec", site.uwsgi()[0], "ls", "/data/backup").stdout.split()
        assert 1 <= len(copies) <= 3
    finally:
        site.restore()


@pytest.mark.slow
@pytest.mark.one_transport
def test_a_new_secret_and_a_new_setting_are_taken_in_and_lose_no_request(site: Site) -> None:
    key = site.folder / "secrets/django_secret_key"
    before = ids(site)
    with site.load() as load:
        key.unlink()
        site.made("up")
        inside = run("docker", "exec", site.uwsgi()[0], "cat", "/run/secrets/django_secret_key").stdout
        assert inside == key.read_text()
        site.environment["UWSGI_PROCESSES"] = "3"
        site.made("up")
    assert load.lost() == []
    # uwsgi alone is new, of four.
    assert len({*before} & {*ids(site)}) == 3
    now = ids(site)
    site.made("up")
    assert ids(site) == now


@pytest.mark.slow_on_tcp
def test_a_changed_limit_and_the_other_transport_lose_no_request(site: Site) -> None:
    """Nginx is replaced new next to old: a long request on the old one delays no other."""
    limits = site.folder / "nginx/http/client-limits.conf"
    shipped, transport, before = limits.read_text(), site.serves_over(), site.containers()
    limits.write_text(shipped.replace("connections:10m", "connections:11m"))
    try:
        with site.load() as load:
            site.made("up")
            changed = site.containers()
            for other in ("unix-socket", "tcp") if transport == "tcp" else ("tcp", "unix-socket"):
                site.up(other)
                assert site.serves_over() == other
                assert len(site.containers("nginx")) == len(site.containers("uwsgi-socket")) == 1
    finally:
        limits.write_text(shipped)
    assert load.lost() == []
    assert len({*before} & {*changed}) == len(before) - 1, "only nginx is new"


@pytest.mark.slow
@pytest.mark.one_transport
def test_verbs_in_an_order_that_no_one_planned(site: Site) -> None:
    """Each ends with the site serving, whatever was typed before."""
    transport = site.serves_over()
    site.made("up-tcp")
    assert site.serves_over() == "tcp"
    site.made("dev")
    site.made("up")
    for number, verbs in enumerate((["stop", "deploy"], ["down", "rollback"], ["deploy"], ["scale N=2", "up"])):
        site.change(f"order {number}")
        for verb in verbs:
            site.made(*verb.split())
        assert site.serves_over() == "tcp", verbs
    assert len(site.uwsgi()) == 2
    site.made("scale", "N=1")
    site.up(transport)
    site.made("up")
    assert site.serves_over() == transport


@pytest.mark.slow
@pytest.mark.one_transport
def test_scale_starts_what_serves_and_not_what_was_built_since(site: Site) -> None:
    """S2-4: as after `make update`."""
    version = site.version()
    image = f"{site.project}-uwsgi"
    site.append("wsgi.py", "import nothing_of_that_name")
    try:
        environment = {**site.environment, "RELEASE": "latest"}
        assert run("docker", "compose", "build", "uwsgi", cwd=site.folder, environment=environment).returncode == 0
    finally:
        site.restore()
    site.made("scale", "N=2")
    assert {site.version() for _ in range(20)} == {version}
    site.made("scale", "N=1")
    assert (
        run("docker", "inspect", "--format", "{{.Id}}", f"{image}:latest").stdout
        == run("docker", "inspect", "--format", "{{.Image}}", site.uwsgi()[0]).stdout
    )


@pytest.mark.slow
@pytest.mark.one_transport
def test_a_long_command_outlives_a_deploy_and_a_reload(site: Site) -> None:
    """S1-8: neither `make manage` nor a cron job of the owner's is ended."""
    compose = ("docker", "compose", "run", "--detach", "--no-deps", "-T", "release")
    cron = run(*compose, "sleep", "60", cwd=site.folder, environment=site.environment)
    assert cron.returncode == 0, cron.stderr
    name = cron.stdout.split()[-1]
    try:
        site.change("while a command runs")
        site.made("deploy")
        site.made("reload")
        assert run("docker", "inspect", "--format", "{{.State.Running}}", name).stdout.strip() == "true"
    finally:
        run("docker", "rm", "--force", name)


@pytest.mark.one_transport
def test_manage_takes_a_pipe_and_gives_the_exit_code(site: Site) -> None:
    piped = run(
        "sh", "-c", "echo 'print(41 + 1)' | make manage CMD='shell -v 0'", cwd=site.folder, environment=site.environment
    )
    assert "42" in piped.stdout, piped.stderr
    assert site.make("manage", "CMD=no_such_command").returncode != 0
    assert site.one_off() == []
