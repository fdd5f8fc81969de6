"""A test run that was killed takes nothing away from the next one."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator

import pytest

from tests.support import runs
from tests.support.stack import CHECKOUT, run

DEAD = "0badcafe"


@pytest.fixture
def left() -> Iterator[str]:
    """A volume of a run that is no more."""
    name = f"test-{DEAD}-tcp-shared_data"
    runs.lock_of(DEAD).touch()
    assert run("docker", "volume", "create", name).returncode == 0
    try:
        yield name
    finally:
        run("docker", "volume", "rm", "--force", name)
        runs.lock_of(DEAD).unlink(missing_ok=True)


def test_what_a_killed_run_left_is_removed(left: str) -> None:
    runs.remove(lambda name: DEAD in name and runs.abandoned(name))
    assert run("docker", "volume", "inspect", left).returncode != 0


def test_a_run_that_is_alive_loses_nothing(left: str) -> None:
    with runs.lock_of(DEAD).open() as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        assert not runs.abandoned(left)
    # This very run; begun by pytest, in another process.
    assert not runs.abandoned(f"test-{CHECKOUT}-tcp-shared-nginx-1")


def test_a_run_of_another_machine_or_user_loses_nothing(left: str) -> None:
    runs.lock_of(DEAD).unlink()
    assert not runs.abandoned(left)


@pytest.mark.parametrize("name", ["test-site-nginx-1", "mysite-nginx-1", "test-0badcafe", "test-0BADCAFE-tcp"])
def test_what_no_test_has_named_is_never_removed(left: str, name: str) -> None:
    assert runs.lock_of(DEAD).exists()
    assert not runs.abandoned(name)


def test_two_runs_in_one_folder_are_refused() -> None:
    with pytest.raises(RuntimeError, match="runs in this folder"):
        runs.begin()
