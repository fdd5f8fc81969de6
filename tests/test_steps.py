"""Everything that changes the stack goes one way, step by step; what fails leaves all that follows undone."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops import __main__ as main
from ops import change, console, deploy, logs, releases, stack, state
from ops import wanted as wanted_module
from ops.state import State
from tests.test_state import TCP, UNIX, container, folder, running

__all__ = ["folder"]


def digest_of(config: dict[str, Any]) -> str:
    """Return the digest of what nginx mounts."""
    return wanted_module.digest(config, "nginx")


def test_the_contents_of_mounted_files_and_secrets_count(tmp_path: Path) -> None:
    """Compose looks at their names alone."""
    file, secret = tmp_path / "tcp.conf", tmp_path / "key"
    file.write_text("one")
    secret.write_text("one")
    config = {
        "services": {"nginx": {"configs": [{"source": "transport"}], "secrets": [{"source": "key"}]}},
        "configs": {"transport": {"file": str(file)}},
        "secrets": {"key": {"file": str(secret)}},
    }
    seen = {digest_of(config)}
    for changed in (file, secret):
        changed.write_text("two")
        seen.add(digest_of(config))
    assert len(seen) == 3


def wanted(**fields: Any) -> wanted_module.Wanted:
    """Return what the files ask for: nginx and uwsgi, as `container` shows them."""
    plain = wanted_module.Wanted(
        files=TCP,
        config={"services": {"nginx": {}, "uwsgi": {}, "release": {}}},
        images={"nginx": "n:next", "uwsgi": "shop-uwsgi:next", "release": "shop-uwsgi:next"},
        ids={"n:next": "sha256:1", "shop-uwsgi:next": "sha256:1"},
        digests={"nginx": "a-b", "uwsgi": "a-b"},
    )
    return dataclasses.replace(plain, **fields)


@pytest.mark.parametrize(
    ("asked", "found", "different"),
    [
        ({}, {}, set()),
        ({"digests": {"nginx": "other-b", "uwsgi": "a-b"}}, {}, {"nginx"}),
        ({"digests": {"nginx": "a-b", "uwsgi": "a-other"}}, {}, {"uwsgi"}),
        ({"ids": {"n:next": "sha256:1", "shop-uwsgi:next": "sha256:2"}}, {}, {"uwsgi"}),
        ({}, {"health": "unhealthy"}, {"nginx", "uwsgi"}),
    ],
)
def test_only_what_differs_is_replaced(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], found: dict[str, Any], different: set[str]
) -> None:
    monkeypatch.setattr(stack, "settings", lambda: stack.Settings("shop"))
    containers = [container(service, **found) for service in ("nginx", "uwsgi")]
    before = State(TCP, "tcp", digests={"nginx": "a-b", "uwsgi": "a-b"})
    assert wanted(**asked).different(before, containers) == different
    assert wanted(**asked).different(before, containers[:1]) == different | {"uwsgi"}
    # Of what an older version has started nothing is known: Compose decides.
    unknown = State(TCP, "tcp")
    assert wanted(**asked).different(unknown, containers) == {"nginx", "uwsgi"}
    assert not wanted(**asked).has_new_contents("uwsgi", unknown)


def test_new_contents_are_told_from_new_settings() -> None:
    before = State(TCP, "tcp", digests={"nginx": "a-b"})
    assert not wanted(digests={"nginx": "other-b"}).has_new_contents("nginx", before)
    assert wanted(digests={"nginx": "a-other"}).has_new_contents("nginx", before)


def test_a_change_that_is_killed_can_be_taken_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some containers may have what no file says any more, contents of mounted files included."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    running(monkeypatch, container("nginx"), container())
    monkeypatch.setattr(deploy, "start", killed)
    before = State(TCP, "tcp", digests={"nginx": "a-b", "uwsgi": "a-b"})
    with pytest.raises(KeyboardInterrupt):
        deploy.bring_others(wanted(digests={"nginx": "a-changed", "uwsgi": "a-b"}), before)
    left = state.read()
    assert left is not None
    assert wanted().different(left, stack.containers()) == {"nginx"}
    assert wanted().has_new_contents("nginx", left)


def test_what_a_killed_change_of_transport_has_left_goes_from_the_outside_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once uwsgi of that transport has gone, its nginx would pass requests to a socket that no one reads."""
    inner = ("uwsgi-socket", "uwsgi", "nginx")
    left = [container(service, id=f"new-{service}", files=UNIX) for service in inner]
    running(monkeypatch, container("nginx-socket"), *map(container, inner), *left)
    retired: list[str] = []
    monkeypatch.setattr(deploy, "retire", lambda old: retired.extend(one.id for one in old))
    state.write(State(TCP, "tcp"))
    assert deploy.production_files(state.current()) == [*TCP]
    assert retired == ["new-nginx", "new-uwsgi", "new-uwsgi-socket"]


@pytest.mark.parametrize("missing", ["nginx", "uwsgi", "uwsgi-socket"])
def test_what_serves_alone_is_never_retired(folder: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """A state file of another checkout, or a plain `docker compose up` over the other transport."""
    inner = ("uwsgi-socket", "uwsgi", "nginx")
    serving = [container(service, id=f"serving-{service}", files=UNIX) for service in inner]
    running(monkeypatch, *serving, *(container(service) for service in inner if service != missing))
    monkeypatch.setattr(deploy, "retire", lambda _: pytest.fail("what serves was retired"))
    with pytest.raises(console.Stop, match=r"Containers over unix-socket run.* make up-tcp or make up-unix"):
        deploy.production_files(State(TCP, "tcp"))


def test_two_nginx_that_a_killed_change_has_left_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, container("nginx"), container("nginx", id="new"))
    with pytest.raises(console.Stop, match=r"Two containers of nginx run.* type: make up"):
        deploy.refuse_two_nginx()


def test_the_log_of_a_container_that_crashed_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose would start it again, with its old code, so it is removed."""
    found = [container(), container(id="crashed", running=False)]
    steps: Steps = []
    monkeypatch.setattr(stack, "containers", lambda *_: [*found])
    monkeypatch.setattr(stack, "compose", lambda *_: found.append(container(id="new")))
    monkeypatch.setattr(logs, "keep", lambda stopped: steps.extend(f"keep {one.id}" for one in stopped))
    monkeypatch.setattr(deploy, "remove", lambda ids: steps.extend(f"remove {one}" for one in ids))
    assert deploy.start_more(TCP, "uwsgi", 1) == ["new"]
    assert steps == ["keep crashed", "remove crashed"]


Steps = list[str]


@pytest.fixture
def steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Steps:
    """The steps that are taken of a change of nginx and uwsgi, none of them for real."""
    taken: Steps = []

    def noted(name: str) -> Callable[..., Any]:
        return lambda *_, **__: taken.append(name)

    def started(_: Any, service: str, count: int) -> list[stack.Container]:
        taken.append(f"start {service}")
        return [container(service)] * count

    monkeypatch.setattr(deploy, "preflight", Anything(check=noted("preflight"), bound=lambda _: []))
    monkeypatch.setattr(
        deploy,
        "proof",
        Anything(
            project=noted("check"),
            nginx=noted("nginx -t"),
            socket_holder=noted("holder"),
            trial=noted("trial"),
        ),
    )
    monkeypatch.setattr(stack, "config", lambda _: {"services": {}})
    monkeypatch.setattr(stack, "build", noted("build"))
    monkeypatch.setattr(deploy, "run_release", noted("release"))
    for name in ("launch", "name_latest", "pool_is_moved", "takes_port", "claim", "quiet", "remove"):
        monkeypatch.setattr(deploy, name, noted(name))
    monkeypatch.setattr(deploy, "start_new", started)
    monkeypatch.setattr(deploy, "retire", lambda old: taken.extend(f"retire {container.service}" for container in old))
    monkeypatch.setattr(stack, "images", lambda _: {})
    monkeypatch.setattr(releases, "remember", noted("remember"))
    monkeypatch.setattr(releases, "keep", lambda *_, **__: "r")
    monkeypatch.setattr(deploy, "look", lambda *_: wanted())
    monkeypatch.setattr(stack, "wait_healthy", noted("healthy"))
    monkeypatch.setattr(stack, "compose", noted("compose"))
    running(monkeypatch, container("nginx"), container())
    return taken


class Anything:
    """A module with these functions."""

    def __init__(self, **functions: Callable[..., Any]) -> None:
        self.__dict__.update(functions)


def test_a_change_takes_its_steps_in_order(steps: Steps) -> None:
    before = State(TCP, "tcp", "old", 1)
    now, _ = deploy.bring(TCP, before, everything=True)
    wanted_order = ["preflight", "build", "check", "nginx -t", "release", "trial", "start uwsgi", "start nginx"]
    wanted_order += ["retire nginx", "retire uwsgi"]
    assert [step for step in steps if step in wanted_order] == wanted_order
    assert "launch" not in steps, "nothing is replaced in place"
    assert (now.release, now.replicas, now.digests) == ("r", 1, wanted().digests)
    assert state.read() == now


def test_make_deploy_takes_the_same_steps_and_leaves_other_services_alone(steps: Steps) -> None:
    deploy.bring(TCP, State(TCP, "tcp"), everything=False)
    assert "start uwsgi" in steps
    assert not {"nginx -t", "launch", "start nginx", "retire nginx"} & {*steps}


def test_make_deploy_is_refused_while_others_have_new_settings(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """REQUEST_SECONDS, for example, is read by nginx and by uWSGI: nginx would give up first."""
    config = {"services": {"nginx": {"environment": {"REQUEST_SECONDS": "60"}}, "uwsgi": {}}}
    monkeypatch.setattr(stack, "config", lambda _: config)
    before = State(TCP, "tcp", digests={"nginx": "a-b", "uwsgi": "a-b"})
    with pytest.raises(console.Stop, match=r"Changed since the last `make up`.*: settings of nginx. .* type: make up"):
        deploy.bring(TCP, before, everything=False)
    assert steps == ["preflight"]


def test_what_deploys_do_not_take_in_is_known(folder: Path) -> None:
    """A deploy takes in what the project's own containers read, `release` among them."""

    def config(text: str) -> dict[str, Any]:
        image = {"image": "shop-uwsgi:latest", "environment": {"DATABASE_URL": text}}
        return {"services": {"nginx": {"image": "shop-nginx:latest"}, "uwsgi": image, "release": image}}

    before = State(
        TCP, "tcp", digests={name: wanted_module.digest(config("a"), name) for name in config("a")["services"]}
    )
    assert wanted_module.not_taken_in(config("b"), before) == []
    log_file = dataclasses.replace(before, files=(*TCP, "overrides/log-file.yaml"))
    assert wanted_module.not_taken_in(config("a"), log_file) == ["COMPOSE_FILE"]
    direct = dataclasses.replace(before, files=(*TCP, stack.DIRECT))
    assert wanted_module.not_taken_in(config("a"), direct) == []
    assert wanted_module.not_taken_in(config("b"), State(UNIX, "tcp")) == [], "of an older version nothing is known"


def test_new_containers_have_the_settings_of_those_that_serve(folder: Path) -> None:
    old, new = ({"services": {"uwsgi": {"environment": {"DATABASE_URL": text}}}} for text in ("a", "b"))
    before = State(TCP, "tcp", digests={"uwsgi": wanted_module.digest(old, "uwsgi")})
    deploy.refuse_other_settings(old, before)
    deploy.refuse_other_settings(new, State(TCP, "tcp"))
    with pytest.raises(console.Stop, match=r"would differ from those that serve.* type: make up"):
        deploy.refuse_other_settings(new, before)


def test_make_deploy_starts_an_nginx_that_is_missing(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, container())
    started: list[str] = []
    monkeypatch.setattr(deploy, "start", lambda _, services, *options: started.extend(services))
    deploy.bring(TCP, State(TCP, "tcp"), everything=False)
    assert started == ["nginx"]


def test_a_first_start_after_make_down_that_fails_forgets_nothing(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise console.Stop("build")

    running(monkeypatch)
    monkeypatch.setattr(stack, "build", fails)
    before = State(UNIX, "unix-socket", "20260101-000000", 3)
    state.write(before)
    with pytest.raises(console.Stop, match="build"):
        deploy.bring(UNIX, before, everything=True)
    assert state.read() == before


def test_what_is_left_of_another_transport_is_replaced(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `make down`, an up-unix that was killed once its uwsgi-socket ran: uwsgi would find no pool of its own."""
    running(monkeypatch, container("uwsgi-socket", files=UNIX))
    asked = wanted(
        config={"services": {service: {} for service in ("uwsgi-socket", "uwsgi", "release")}},
        images={"uwsgi-socket": "n:next", "uwsgi": "shop-uwsgi:next", "release": "shop-uwsgi:next"},
        digests={"uwsgi-socket": "a-b", "uwsgi": "a-b"},
    )
    monkeypatch.setattr(deploy, "look", lambda *_: asked)
    deploy.bring(TCP, State(TCP, "tcp", digests={"uwsgi-socket": "a-b", "uwsgi": "a-b"}), everything=True)
    assert [step for step in steps if step.startswith("start ")] == ["start uwsgi-socket", "start uwsgi"]


def test_nothing_is_marked_that_was_not_known(folder: Path) -> None:
    """Otherwise the sockets' holders were replaced without need after a start that failed."""
    deploy.forget(["nginx", "nginx-socket"], State(TCP, "tcp", digests={"nginx": "a-b"}))
    left = state.read()
    assert left is not None
    assert left.digests == {"nginx": wanted_module.UNKNOWN}


def test_a_change_of_transport_replaces_the_inner_socket_as_well(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    services = ("nginx-socket", "nginx", "uwsgi-socket", "uwsgi")
    running(monkeypatch, *map(container, services))
    asked = wanted(
        config={"services": {service: {} for service in (*services, "release")}},
        images=dict.fromkeys(services, "n:next") | {"uwsgi": "shop-uwsgi:next"},
        digests=dict.fromkeys(services, "new-b") | {"nginx-socket": "a-b"},
    )
    monkeypatch.setattr(deploy, "look", lambda *_: asked)
    before = State((), "unix-socket", digests=dict.fromkeys(services, "a-b"))
    assert deploy.bring(TCP, before, everything=True)[0].transport == "tcp"
    order = ["start uwsgi-socket", "start uwsgi", "start nginx", "retire nginx", "retire uwsgi", "retire uwsgi-socket"]
    assert [step for step in steps if step.startswith(("start ", "retire "))] == order
    assert "launch" not in steps


@pytest.mark.parametrize("failing", ["build", "check", "nginx -t", "release", "trial", "start uwsgi"])
def test_what_fails_leaves_all_that_follows_undone(steps: Steps, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise console.Stop(failing)

    steps_module = vars(deploy)["proof"]
    owners = {
        "build": (stack, "build"),
        "check": (steps_module, "project"),
        "nginx -t": (steps_module, "nginx"),
        "release": (deploy, "run_release"),
        "trial": (steps_module, "trial"),
        "start uwsgi": (deploy, "start_new"),
    }
    monkeypatch.setattr(*owners[failing], fails)
    with pytest.raises(console.Stop, match=failing):
        deploy.bring(TCP, State(TCP, "tcp"), everything=True)
    assert "launch" not in steps
    assert not [step for step in steps if step.startswith(("start ", "retire "))]
    assert ("remove" in steps) == (failing in {"release", "trial", "start uwsgi"})
    assert steps[-1] == "quiet"
    assert state.read() is None


def test_a_build_adds_no_attestations() -> None:
    """With them, the containerd image store gives every cached build a new id, and everything is replaced."""
    command = stack.compose_command(TCP, "build", release=releases.NEXT)
    assert command[:4] == ["env", "BUILDX_NO_DEFAULT_ATTESTATIONS=1", "RELEASE=next", "docker"]


def test_retirement_waits_as_long_as_the_container_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """And keeps its log, which Docker removes with it."""
    waited: list[float] = []
    kept: list[str] = []
    monkeypatch.setattr(logs, "keep", lambda old: kept.extend(one.service for one in old))
    monkeypatch.setattr(stack, "docker", lambda *words, seconds=0.0: waited.append(seconds) if "stop" in words else "")
    deploy.retire([container(grace_seconds=310)])
    assert (waited, kept) == ([370], ["uwsgi"])


def test_what_a_killed_verb_has_left_is_no_release(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, container(image="old", started="1"), container(id="new", image="new", started="2"))
    monkeypatch.setattr(releases, "known", lambda: {"20260101-000000": "old"})
    state.write(State(TCP, "tcp", "20260101-000000"))
    assert releases.running() == "old"
    state.forget()
    assert releases.running() == "new"


RELEASES = {"20260104-0": "d", "20260103-0": "c", "20260102-1": "b", "20260102-0": "b", "20260101-0": "a"}


def test_a_rollback_after_a_killed_deploy_goes_back_one_release(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the deploy has started is not written down yet, and is what one wants to leave."""
    monkeypatch.setattr(releases, "known", lambda: RELEASES)
    before = State(TCP, "tcp", "20260103-0")
    state.write(before)
    running(monkeypatch, container(image="c"))
    assert releases.to_return_to(before) == "20260102-1"
    running(monkeypatch, container(image="c"), container(id="new", image="not kept yet"))
    assert releases.to_return_to(before) == "20260103-0"


def test_a_rollback_does_not_go_to_a_release_that_one_has_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "known", lambda: RELEASES)
    running(monkeypatch, container(image="d"))
    assert releases.previous("20260104-0", left=["20260103-0"]) == "20260102-1"


def test_of_several_names_of_the_image_that_serves_one_is_live(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after deploys that changed nothing."""
    monkeypatch.setattr(releases, "known", lambda: RELEASES)
    running(monkeypatch, container(image="b"))
    for written, live in ((None, "20260102-1"), (State(TCP, "tcp", "20260102-0"), "20260102-0")):
        if written:
            state.write(written)
        releases.show()
        assert [line[2:].split()[0] for line in capsys.readouterr().out.splitlines() if line[0] == "*"] == [live]


def test_before_the_first_start_each_verb_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not what Compose thinks of a project.env that is not made yet."""
    monkeypatch.setattr(deploy, "change", lambda _: contextlib.nullcontext(state.current()))
    monkeypatch.setattr(releases, "known", dict)
    monkeypatch.setattr(stack, "config", lambda _: pytest.fail("Compose was asked"))
    with pytest.raises(console.Stop, match=r"No uwsgi container is running\. Start the stack: make up"):
        deploy.scale("2")
    with pytest.raises(console.Stop, match=r"There is no release yet\. The first is made by: make up"):
        deploy.rollback()


def test_several_names_of_one_image_are_one_release_of_the_last_three(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[str] = []
    monkeypatch.setattr(releases, "known", lambda: RELEASES)
    monkeypatch.setattr(releases, "running", lambda: "d")
    monkeypatch.setattr(releases, "forget", forgotten.append)
    releases.remember()
    assert forgotten == ["20260101-0"]


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(**_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/state.new")

    monkeypatch.setattr(sys, "argv", ["ops", "status"])
    monkeypatch.setitem(main.VERBS, "status", dataclasses.replace(main.VERBS["status"], do=full, set_up=False))
    assert main.main() == 1
    assert "The disk of /data/state.new is full. Make room" in capsys.readouterr().err


def test_what_is_taken_back_is_stopped_before_it_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may serve already, as when Ctrl-C is pressed in `make deploy`: removed by force, it lost three requests."""
    typed: list[list[str]] = []
    monkeypatch.setattr(deploy, "quiet", lambda command, seconds: typed.append(command))
    monkeypatch.setattr(deploy, "remove", lambda ids: typed.append(["removed", *ids]))
    monkeypatch.setattr(stack, "images", lambda names: {})
    old, new = container("uwsgi", id="old"), [container(name) for name in ("uwsgi-socket", "uwsgi", "nginx")]
    new.append(container("uwsgi", id="ended", running=False))
    found = iter([[old], [old, *new]])
    monkeypatch.setattr(stack, "containers", lambda: next(found))
    with pytest.raises(KeyboardInterrupt), deploy.undone_on_failure([]):
        raise KeyboardInterrupt
    # nginx first, which feeds the others
    stopped = [["docker", "stop", name] for name in ("nginx", "uwsgi", "uwsgi-socket")]
    assert typed == [*stopped, ["removed", "uwsgi-socket", "uwsgi", "nginx", "ended"]]


def test_a_verb_that_is_cut_off_says_what_to_type(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(change, "ROOT", folder)
    monkeypatch.setattr(change, "owners_of_volumes", set)
    monkeypatch.setattr(stack, "all_containers", list)
    with pytest.raises(KeyboardInterrupt), change.change("deploy"):
        raise KeyboardInterrupt
    assert "Cut off. To finish it, type: make deploy" in capsys.readouterr().err
