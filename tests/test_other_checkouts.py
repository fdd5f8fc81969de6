"""A checkout changes no stack that another folder made, and takes over one whose folder was moved."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops import __main__, change, console, stack, state
from tests.test_state import container


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The docker commands that are typed; none of them for real. This checkout is in the folder `here`."""
    typed: list[str] = []
    here = tmp_path / "here"
    here.mkdir()

    def noted(*words: str, **_: Any) -> str:
        typed.append(" ".join(words))
        return ""

    monkeypatch.setattr(change, "ROOT", here)
    monkeypatch.setattr(console, "ROOT", here)
    monkeypatch.setattr(stack, "settings", lambda: stack.Settings("shop"))
    monkeypatch.setattr(stack, "docker", noted)
    monkeypatch.setattr(change, "quiet", lambda words, **_: typed.append(" ".join(words[1:])))
    monkeypatch.setattr(stack, "all_containers", list)
    return typed


def made_from(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let a container be one that this folder made."""
    monkeypatch.setattr(stack, "all_containers", lambda: [container(folder=str(folder))])


def test_the_stack_of_another_folder_is_refused(
    docker: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made_from(monkeypatch, tmp_path)
    with pytest.raises(console.Stop, match=rf"belongs to {tmp_path}.*in .env: COMPOSE_PROJECT_NAME=here-2"):
        change.refuse_another_checkout(stack.all_containers())
    assert not [words for words in docker if not words.startswith("volume ls")]


def test_volumes_without_a_container_are_refused_as_well(
    docker: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stack, "docker", lambda *_: f"\n{tmp_path}\n")
    with pytest.raises(console.Stop, match="COMPOSE_PROJECT_NAME"):
        change.refuse_another_checkout(stack.all_containers())


def test_a_folder_that_was_moved_takes_its_stack_with_it(
    docker: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_from(monkeypatch, tmp_path / "gone")
    change.refuse_another_checkout(stack.all_containers())
    change.claim()
    assert f"{tmp_path}/gone does not exist any more: its stack 'shop' is taken over" in capsys.readouterr().out
    assert "volume rm shop_folder" in docker
    assert docker[-1].startswith("volume create --label com.docker.compose.project=shop --label ")
    assert docker[-1].endswith(f"working_dir={tmp_path}/here shop_folder")


def test_ones_own_stack_is_not_refused(docker: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made_from(monkeypatch, tmp_path / "here")
    change.refuse_another_checkout(stack.all_containers())
    (tmp_path / "link").symlink_to(tmp_path / "here")
    made_from(monkeypatch, tmp_path / "link")
    change.refuse_another_checkout(stack.all_containers())


def test_only_what_the_verbs_have_started_is_removed(docker: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A cron job's `docker compose run` carries no label of ours."""
    trial = container(id="trial", one_off=True, marks=frozenset({stack.TRIAL_LABEL}))
    cron = container("release", id="cron", one_off=True)
    monkeypatch.setattr(stack, "all_containers", lambda: [trial, cron, container()])
    monkeypatch.setattr(state, "current", lambda: None)
    with change.change("deploy"):
        assert [words for words in docker if words.startswith("rm ")] == ["rm --force trial"]


def test_a_migration_under_way_is_waited_for_and_then_refused(
    docker: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change, "MIGRATION_SECONDS", 0.1)
    migrating = container("release", one_off=True, marks=frozenset({stack.MIGRATION_LABEL}))
    monkeypatch.setattr(stack, "all_containers", lambda: [migrating])
    with (
        pytest.raises(console.Stop, match="docker logs --follow x-release-1; when it has ended: make deploy"),
        change.change("deploy"),
    ):
        pass


def test_of_two_verbs_at_once_the_second_refuses(docker: list[str]) -> None:
    with (Path(console.ROOT) / ".shop.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (
            pytest.raises(console.Stop, match=r"under way. Wait until it ends, then: make stop"),
            change.only_one("stop"),
        ):
            pass


def test_a_lock_of_another_user_is_one_sentence(docker: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(console.Stop, match=r"here/.shop.lock belongs to .*: sudo chown -R"), change.only_one("up"):
        pass


def test_secrets_of_another_user_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refused() -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "secrets/django_secret_key"))

    assert verb_that(refused, monkeypatch) == 1
    assert capsys.readouterr().err.count("secrets/django_secret_key belongs to ") == 1


def test_settings_of_another_user_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compose may not read them either."""
    refused = subprocess.CompletedProcess((), 1, "", "open /srv/shop/project.env: permission denied\n")
    monkeypatch.setattr(stack, "run", lambda *_, **__: refused)

    def reads() -> None:
        stack.config(["-"])

    assert verb_that(reads, monkeypatch) == 1
    assert "/srv/shop/project.env belongs to " in capsys.readouterr().err


def test_a_command_that_hangs_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def hangs() -> None:
        raise subprocess.TimeoutExpired(["docker", "inspect", "1"], 60)

    assert verb_that(hangs, monkeypatch) == 1
    assert "docker inspect 1 ... took longer than 60 s" in capsys.readouterr().err


def verb_that(does: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the exit code of a verb that does this."""
    monkeypatch.setattr(__main__, "VERBS", {"try": __main__.Verb("", does)})
    monkeypatch.setattr(sys, "argv", ["ops/run", "try"])
    return __main__.main()
