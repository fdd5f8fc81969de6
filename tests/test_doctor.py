"""`make doctor` finds nothing in a healthy stack, and each of its checks finds what it is for."""

from __future__ import annotations

import dataclasses

import pytest

from ops import doctor
from ops.doctor import CHECKS
from tests.support.stack import CHECKOUT, ROOT, Stack, run, wait_until

NOTHING: list[str] = []


@pytest.fixture
def examined(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """The shared stack, which ops takes for this checkout's own. A test that breaks it repairs it."""
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", stack.project)
    return stack


def test_finds_nothing_in_a_healthy_stack(examined: Stack) -> None:
    assert doctor.examine(doctor.gather()) == NOTHING
    done = run("ops/run", "doctor", environment={"COMPOSE_PROJECT_NAME": examined.project})
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"\n{len(CHECKS)} checks, nothing wrong.\n")


def test_the_checklist_says_how_many_checks_there_are() -> None:
    assert f"`{len(CHECKS)} checks, nothing wrong.`" in (ROOT / "docs/go-live.md").read_text()


@pytest.mark.one_transport
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"uwsgi": {"harakiri": "36"}}, "worker-reload-mercy (uwsgi/uwsgi.ini) is 9 s, not above harakiri"),
        ({"uwsgi": {"worker-reload-mercy": "60"}}, "stop_grace_period of uwsgi (compose.yaml) is 40 s"),
        ({"nginx": {"uwsgi_read_timeout": "5s"}}, "uwsgi_read_timeout (nginx/entrypoint) is 5 s"),
        ({"nginx": {"worker_shutdown_timeout": "99s"}}, "stop_grace_period of nginx (compose.yaml) is 50 s"),
        ({"uwsgi": {"buffer-size": "4096"}}, "buffer-size (uwsgi/uwsgi.ini) is 4096, not above"),
        ({"uwsgi": {"max-vars": "64"}}, "max-vars (uwsgi/uwsgi.ini) is 64"),
        (
            {"queues": {"uwsgi-socket": (1024, 128)}},
            "listen (sockets/uwsgi-socket.ini) is 1024, above net.core.somaxconn",
        ),
        (
            {"queues": {"nginx-socket": (4096, 128)}},
            "listen (sockets/nginx-socket.ini) is 4096, above net.core.somaxconn",
        ),
        ({"sockets": {"/run/pool/nginx.sock": "10000 770"}}, "not 10101 770"),
        ({"descriptors": 1024}, "nginx may open 1024 files"),
        ({"memory": {"uwsgi-1": (450 << 20, 512 << 20)}}, "uwsgi-1 uses 450 MB of 512 MB"),
        ({"data_used": 0.97}, "The volume data is 97% full"),
        ({"disk": ["no room"]}, "no room"),
        ({"clock_offset": -3600.0}, "clock is -3600 s off"),
        ({"versions": ["Compose 2.26 or newer (found: 2.1.0)"]}, "This needs Compose 2.26"),
        ({"unhealthy": ["uwsgi-1"]}, "uwsgi-1 is unhealthy"),
    ],
)
def test_each_number_out_of_order_is_found(examined: Stack, change: dict[str, object], message: str) -> None:
    facts = doctor.gather()
    merged = {
        name: {**getattr(facts, name), **value} if name in ("uwsgi", "nginx") and isinstance(value, dict) else value
        for name, value in change.items()
    }
    found = doctor.examine(dataclasses.replace(facts, **merged))  # type: ignore[arg-type]
    assert message in "\n".join(found)


@pytest.mark.slow_on_tcp
def test_a_socket_with_a_wrong_mode_is_found(examined: Stack) -> None:
    path = f"/run/pool/{examined.transport}.sock"
    examined.exec("uwsgi-socket", "chmod", "0755", path)
    try:
        assert f"{path} has group and mode 10000 755" in doctor.examine(doctor.gather())[0]
    finally:
        examined.exec("uwsgi-socket", "chmod", "0770", path)


@pytest.mark.slow
def test_a_port_behind_which_nothing_answers_is_found(examined: Stack) -> None:
    _, *workers = examined.processes("nginx")
    try:
        run("kill", "-STOP", *workers)
        assert "gives no answer within 10 s" in doctor.examine(doctor.gather())[0]
    finally:
        run("kill", "-CONT", *workers)
    wait_until(examined.serves, "served again")


@pytest.mark.slow
@pytest.mark.one_transport
def test_a_replica_that_restarts_in_a_loop_is_found(disposable_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", disposable_stack.project)
    for _ in range(doctor.LOOP_RESTARTS):
        before = disposable_stack.container("uwsgi")["State"]["StartedAt"]
        run("kill", "-KILL", disposable_stack.processes("uwsgi")[0])
        wait_until(lambda: disposable_stack.container("uwsgi")["State"]["StartedAt"] != before, "a restart")  # noqa: B023
        wait_until(lambda: disposable_stack.container("uwsgi")["State"]["Running"], "it runs")
    wait_until(disposable_stack.serves, "served again")
    assert f"{disposable_stack.project}-uwsgi-1 restarts in a loop" in doctor.examine(doctor.gather())[0]


def test_a_stack_that_does_not_run_is_said() -> None:
    done = run("ops/run", "doctor", environment={"COMPOSE_PROJECT_NAME": f"test-{CHECKOUT}-none"})
    assert done.returncode == 1
    assert "No uwsgi container is running. Start the stack: make up" in done.stderr
