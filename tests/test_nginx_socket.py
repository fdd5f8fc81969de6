"""The published port stays open while nginx is restarted or replaced, and no request is lost.

The clients are those of tools/load.py: they keep connections open, half of the requests POST, some are slow, and none
is repeated.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from tests.support.stack import Stack, run, wait_until
from tools.load import Load

# For Docker to start a killed container again
BACK_SECONDS = 10
NO_DRAIN = "no-drain"


def load(stack: Stack) -> Load:
    """Return a load on the published port that leaves one of the two workers for quick requests."""
    return Load(*stack.address(), clients=8, slow_clients=1)


def restarts(stack: Stack, count: int) -> Load:
    """Restart nginx under load with `docker compose restart nginx`; return the load, which has ended."""
    with load(stack) as sent:
        for _ in range(count):
            stack("restart", "nginx")
            wait_until(stack.serves, "served again", 30)
    return sent


def test_restarts_of_nginx_lose_nothing(disposable_stack: Stack) -> None:
    """`make prove` does it 20 times."""
    assert restarts(disposable_stack, 2).lost() == []


@pytest.mark.slow
def test_a_changed_limit_taken_in_by_compose_loses_nothing(
    disposable_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`docker compose up` replaces nginx in place."""
    stack = disposable_stack
    with load(stack) as sent:
        before = stack.container("nginx")["Id"]
        monkeypatch.setenv("NGINX_REQUEST_RATE", "900000r/s")
        stack("up", "--detach", "--wait", "--no-build")
        assert stack.container("nginx")["Id"] != before
    assert sent.lost() == []


@pytest.mark.slow_on_tcp
def test_a_client_answered_just_before_nginx_ends_gets_its_next_answer(disposable_stack: Stack) -> None:
    """Its request began before the drain, so the answer does not tell it to open another connection."""
    stack = disposable_stack
    with socket.create_connection(stack.address(), timeout=30) as client:
        client.sendall(b"GET /sleep/3000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.5)  # under way
        stack.exec("nginx", "sh", "-c", "kill -QUIT 1")
        assert b"Connection: keep-alive" in client.recv(4096)
        # Without an eye on such requests, nginx would have ended 2.5 s after the signal, within this pause.
        time.sleep(0.7)
        client.sendall(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"Connection: close" in client.recv(4096)
    wait_until(stack.serves, "served again", 30)


@pytest.mark.slow
@pytest.mark.one_transport
def test_without_the_drain_the_same_restarts_lose_some(changed_stack: Callable[[str], Stack]) -> None:
    """The control: shows that the tests above would notice a lost request."""
    assert restarts(changed_stack(NO_DRAIN), 6).lost() != []


def wait_for_connection(stack: Stack, value: str) -> None:
    """Wait until the answers of every nginx worker have this header `Connection`."""
    wait_until(lambda: stack.get("/echo").headers["Connection"] == value, f"answers say {value}", 5)
    # The other worker looks for the drain's file within one more second (open_file_cache_valid).
    time.sleep(1.2)


@pytest.mark.slow_on_tcp
def test_the_drain_closes_connections_and_changes_no_request(disposable_stack: Stack) -> None:
    stack = disposable_stack
    assert stack.get("/echo").headers["Connection"] == "keep-alive"
    stack.exec("nginx", "touch", "/run/nginx/draining")
    wait_for_connection(stack, "close")
    # Django must get the same body, query and escapes as without a drain.
    drained = stack.post("/echo/a%3Fb%2Fc?d=%20e", b"body")
    stack.exec("nginx", "rm", "/run/nginx/draining")
    wait_for_connection(stack, "keep-alive")
    plain = stack.post("/echo/a%3Fb%2Fc?d=%20e", b"body")
    assert drained.status_code == plain.status_code == 200
    names = ("method", "path", "query", "sha256", "length")
    assert [drained.json()[name] for name in names] == [plain.json()[name] for name in names]


@pytest.mark.slow_on_tcp
@pytest.mark.parametrize(
    "path",
    ["/static/probe/style.css", "/static/none", "/static/.env", "/-nginx/errors/error.html", "/fail", "/echo/a%0Ab"],
)
def test_the_drain_changes_no_route(disposable_stack: Stack, path: str) -> None:
    stack = disposable_stack
    plain = stack.get(path)
    stack.exec("nginx", "touch", "/run/nginx/draining")
    try:
        wait_for_connection(stack, "close")
        drained = stack.get(path)
    finally:
        stack.exec("nginx", "rm", "/run/nginx/draining")
    assert drained.status_code == plain.status_code
    # drain.conf leaves out /-nginx/, which no browser requests.
    assert drained.headers["Connection"] == "close" or path.startswith("/-nginx/")
    wait_for_connection(stack, "keep-alive")


@pytest.mark.slow_on_tcp
def test_connections_wait_while_nginx_is_stopped(disposable_stack: Stack) -> None:
    stack = disposable_stack
    stack("stop", "nginx")
    with socket.create_connection(stack.address(), timeout=30) as waiting:
        waiting.sendall(b"GET /echo HTTP/1.0\r\nHost: localhost\r\n\r\n")
        stack("start", "nginx")
        assert waiting.recv(30).startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow_on_tcp
def test_nginx_waits_for_nginx_socket_and_logs_it(disposable_stack: Stack) -> None:
    stack = disposable_stack
    stack("rm", "--stop", "--force", "nginx-socket", "nginx")
    stack("up", "--detach", "--no-build", "nginx")
    wait_until(lambda: "waiting for nginx-socket" in stack.log("nginx"), "nginx logs that it waits", 10)
    stack("up", "--detach", "--no-build", "nginx-socket")
    wait_until(stack.serves, "served", 10)
    assert stack.container("nginx")["RestartCount"] == 0


@pytest.mark.slow_on_tcp
def test_nginx_uses_the_socket_of_a_restarted_nginx_socket(disposable_stack: Stack) -> None:
    stack = disposable_stack
    nginx = stack.container("nginx")["State"]["StartedAt"]
    for _ in range(3):
        before = stack.container("nginx-socket")["State"]
        run("kill", "-KILL", str(before["Pid"]))
        began = time.monotonic()
        wait_until(lambda: stack.container("nginx-socket")["State"]["StartedAt"] != before["StartedAt"], "a restart")  # noqa: B023
        restarted = time.monotonic()
        wait_until(stack.serves, "served again", BACK_SECONDS)
        now = time.monotonic()
        print(f"nginx-socket killed: back after {restarted - began:.1f} s, served {now - restarted:.1f} s later")
        # run-nginx asks four times per second; the rest is for a busy machine.
        assert now - restarted < 5
    assert stack.container("nginx")["State"]["StartedAt"] == nginx


@pytest.mark.slow
def test_nginx_serves_again_after_its_master_was_killed(disposable_stack: Stack) -> None:
    stack = disposable_stack
    _, master, *_ = stack.processes("nginx")
    run("kill", "-KILL", master)
    began = time.monotonic()
    wait_until(stack.serves, "served again", BACK_SECONDS)
    print(f"nginx's master killed: served again after {time.monotonic() - began:.1f} s")
    assert "nginx has ended unexpectedly (signal 9)" in stack.log("nginx")


@pytest.mark.slow_on_tcp
def test_a_reload_keeps_the_socket(disposable_stack: Stack) -> None:
    stack = disposable_stack
    first, *before = stack.processes("nginx")
    run("kill", "-HUP", first)
    wait_until(lambda: not set(stack.processes("nginx")[2:]) & set(before), "all workers are new", 10)
    assert stack.serves()


def test_the_client_address_is_the_one_that_the_published_port_sees(stack: Stack) -> None:
    network = stack.container("nginx-socket")["NetworkSettings"]["Networks"][f"{stack.project}_edge"]
    assert stack.get("/echo").json()["meta"]["REMOTE_ADDR"] == network["Gateway"]
