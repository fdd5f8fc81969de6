"""The state of a stack is one small file, from which every verb reads what it acts on; nothing is guessed."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops import console, deploy, releases, stack, state, up
from ops.stack import Container
from ops.state import State

TCP = ("compose.yaml", "compose.tcp.yaml")
UNIX = ("compose.yaml", "compose.unix-socket.yaml")


def container(service: str = "uwsgi", **fields: Any) -> Container:
    """Return a container that runs, with these fields."""
    plain = Container(
        id=service,
        name=f"x-{service}-1",
        service=service,
        running=True,
        health="healthy",
        started="",
        exit_code=0,
        restarts=0,
        out_of_memory=False,
        image="sha256:1",
        files=TCP,
        one_off=False,
    )
    return dataclasses.replace(plain, **fields)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the compose files, COMPOSE_FILE as shipped, and no container."""
    for name in (*TCP, *UNIX, stack.DEVELOPMENT):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.setattr(state, "ROOT", tmp_path)
    monkeypatch.setattr(stack, "settings", lambda: stack.Settings("shop"))
    running(monkeypatch)
    return tmp_path


def running(monkeypatch: pytest.MonkeyPatch, *found: Container) -> None:
    """Let these be the containers of the stack."""
    monkeypatch.setattr(
        stack, "containers", lambda *services: [one for one in found if not services or one.service in services]
    )


def test_make_up_direct_has_nothing_to_serve_of_make_dev(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would start an image that is not built, or an old one."""
    state.write(State((*TCP, stack.DEVELOPMENT), "tcp"))
    monkeypatch.setattr(up, "change", lambda _: contextlib.nullcontext(state.current()))
    with pytest.raises(console.Stop, match="stack of `make dev`"):
        up.direct()


def test_what_is_written_is_read(folder: Path) -> None:
    written = State(UNIX, "unix-socket", "20261125-000000", 3, str(folder), {"nginx": "abc"})
    state.write(written)
    assert state.read() == written
    assert [path.name for path in folder.glob(".*")] == [".shop.state.json"]
    assert set(json.loads((folder / ".shop.state.json").read_text())) >= {
        "files",
        "transport",
        "release",
        "replicas",
        "folder",
    }


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"files": 1'])
def test_a_file_that_cannot_be_read_is_no_state(folder: Path, content: str) -> None:
    (folder / ".shop.state.json").write_text(content)
    assert state.read() is None
    assert state.current() == State(TCP, "tcp")


def test_without_the_file_the_newest_uwsgi_container_is_believed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = container("uwsgi-socket", files=(*TCP, stack.DEVELOPMENT), created="1")
    old, new = container(created="2"), container(id="new", files=UNIX, created="3")
    running(monkeypatch, holder, old, new)
    assert state.current() == State(UNIX, "unix-socket", replicas=2)


def test_after_dev_and_up_the_file_list_of_dev_is_forgotten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S2-3: Compose does not recreate uwsgi-socket, whose label goes on naming overrides/dev.yaml."""
    running(monkeypatch, container("uwsgi-socket", files=(*TCP, stack.DEVELOPMENT)), container())
    state.write(State((*TCP, stack.DEVELOPMENT), "tcp"))
    with pytest.raises(console.Stop, match=r"has no releases. For production: make up"):
        deploy.production_files(state.current())
    state.write(State(TCP, "tcp"))
    assert deploy.production_files(state.current()) == [*TCP]


def test_a_file_that_is_gone_is_replaced_by_compose_file(folder: Path) -> None:
    state.write(State((*UNIX, "overrides/gone.yaml"), "unix-socket"))
    assert state.current_files() == [*UNIX]


def test_files_are_named_from_the_folder_so_that_it_can_be_moved(folder: Path) -> None:
    assert state.relative([f"{folder}/compose.yaml", "compose.tcp.yaml", "/etc/site.yaml"]) == (
        *TCP,
        "/etc/site.yaml",
    )


def test_labels_of_containers_are_read_as_names_within_their_folder() -> None:
    labels = {
        stack.FOLDER_LABEL: "/old/place",
        stack.FILES_LABEL: "/old/place/compose.yaml,/old/place/compose.tcp.yaml",
    }
    found = Container.read(inspected(labels))
    assert (found.folder, found.files) == ("/old/place", TCP)


def inspected(labels: dict[str, str], **more: Any) -> dict[str, Any]:
    """Return what `docker inspect` shows of a container, as far as it is read."""
    return {
        "Id": "1",
        "Name": "/x",
        "Created": "",
        "RestartCount": 0,
        "Image": "sha256:1",
        "Mounts": [],
        "State": {"Running": True, "StartedAt": "", "ExitCode": 0, "OOMKilled": False},
        "Config": {"Labels": labels, "StopTimeout": 40, "Env": ["NGINX_LISTEN=127.0.0.1:80"]},
        "HostConfig": {"PortBindings": {"8080/tcp": [{"HostIp": "", "HostPort": "8081"}]}, "NetworkMode": "x"},
        **more,
    }


def test_the_ports_of_a_container_are_those_it_was_made_with() -> None:
    assert Container.read(inspected({})).bound == {("0.0.0.0", 8081)}
    on_host = Container.read(inspected({}, HostConfig={"PortBindings": {}, "NetworkMode": "host"}))
    assert on_host.bound == {("127.0.0.1", 80)}


class Brought(Exception):
    """The stack would now be changed, with these files."""


@pytest.mark.parametrize(
    ("written", "asked", "files", "message"),
    [
        (None, None, TCP, ""),
        (State(UNIX, "unix-socket"), None, UNIX, "COMPOSE_FILE in .env names tcp. To change over: make up-tcp"),
        (State(UNIX, "unix-socket"), "tcp", TCP, ""),
        (State(TCP, "tcp"), "unix-socket", UNIX, ""),
        (State((*UNIX, stack.DEVELOPMENT), "unix-socket"), None, UNIX, ""),
    ],
)
def test_make_up_keeps_the_transport_that_runs(
    up_in: Callable[[State | None, str | None], tuple[list[str], str]],
    written: State | None,
    asked: str | None,
    files: tuple[str, ...],
    message: str,
) -> None:
    brought, printed = up_in(written, asked)
    assert brought == [*files]
    assert message in printed


@pytest.fixture
def up_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[State | None, str | None], tuple[list[str], str]]:
    """Types `make up` in this state, and gives the files it would bring and what it prints."""

    def bring(files: list[str], *_: Any, **__: Any) -> None:
        raise Brought(files)

    def typed(written: State | None, asked: str | None) -> tuple[list[str], str]:
        if written:
            state.write(written)
        with pytest.raises(Brought) as brought:
            up.up(asked)
        return brought.value.args[0], capsys.readouterr().out

    monkeypatch.setattr(up, "change", lambda _: contextlib.nullcontext(state.current()))
    monkeypatch.setattr(deploy, "bring", bring)
    return typed


def test_make_dev_that_is_cut_off_has_left_nothing_of_production(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So `make up` after it replaces nginx as well."""

    def cut_off(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(up, "change", lambda _: contextlib.nullcontext(state.current()))
    for name in ("checked_and_built", "claim"):
        monkeypatch.setattr(up, name, lambda *_: {})
    monkeypatch.setattr(up, "launch", cut_off)
    state.write(State(TCP, "tcp", "20260101-000000", digests={"nginx": "a-b"}))
    with pytest.raises(KeyboardInterrupt):
        up.develop()
    left = state.read()
    assert left is not None
    assert (left.files, left.release, left.digests) == ((*TCP, stack.DEVELOPMENT), "20260101-000000", {})


@pytest.mark.parametrize(
    ("running_image", "last", "expected"),
    [
        ("c", "", "20260102-000000"),
        (None, "20260103-000000", "20260102-000000"),
        (None, "20260102-000000", "20260101-000000"),
        (None, "20260104-000000-refused", "20260103-000000"),
        (None, "", "20260103-000000"),
        ("a", "20260101-000000", None),
    ],
)
def test_the_previous_release_is_known_whether_one_serves_or_not(
    monkeypatch: pytest.MonkeyPatch, running_image: str | None, last: str, expected: str | None
) -> None:
    kept = {"20260103-000000": "c", "20260102-000000": "b", "20260101-000000": "a"}
    monkeypatch.setattr(releases, "known", lambda: kept)
    monkeypatch.setattr(releases, "running", lambda: running_image)
    assert releases.previous(last) == expected


def test_a_container_of_make_dev_is_no_release(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, container(files=(*TCP, stack.DEVELOPMENT)))
    assert releases.running() is None
