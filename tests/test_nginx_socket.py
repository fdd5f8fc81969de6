"""The published port outlives nginx: nginx is restarted, replaced or killed, and clients do not notice.

The clients are those of tools/load.py: keep-alive, half POST, some slow, and nothing is repeated.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.stack import Stack, run, wait_until
from tools.load import Load

# The restart policy, and a start
BACK_SECONDS = 10
NO_DRAIN = "no-drain"


def load(stack: Stack) -> Load:
    """Return a load on the published port that leaves one of the two workers to the quick requests."""
    return Load(*stack.address(), clients=8, slow_clients=1)


def restarts(stack: Stack, count: int) -> Load:
    """Type `docker compose restart nginx` under load; return the load, which has ended."""
    with load(stack) as sent:
        for _ in range(count):
            stack("restart", "nginx")
            wait_until(stack.serves, "served again", 30)
    return sent


@pytest.fixture
def changed_rate() -> Iterator[Callable[[int], None]]:
    """Changes a limit of nginx, which Compose answers with a new container."""
    name = "NGINX_REQUEST_RATE"

    def change(number: int) -> None:
        os.environ[name] = f"{900_000 + number}r/s"

    try:
        yield change
    finally:
        os.environ.pop(name, None)


@pytest.mark.parametrize("count", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_restarts_of_nginx_lose_nothing(disposable_stack: Stack, count: int) -> None:
    began = time.monotonic()
    sent = restarts(disposable_stack, count)
    print(f"{count} restarts of nginx, {sent.requests} requests, {time.monotonic() - began:.0f} s")
    assert sent.lost() == []


@pytest.mark.slow_on_tcp
@pytest.mark.parametrize("count", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_changed_limit_loses_nothing(
    disposable_stack: Stack, changed_rate: Callable[[int], None], count: int
) -> None:
    stack = disposable_stack
    with load(stack) as sent:
        for number in range(count):
            before = stack.container("nginx")["Id"]
            changed_rate(number)
            stack("up", "--detach", "--wait", "--no-build")
            assert stack.container("nginx")["Id"] != before
    assert sent.lost() == []


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_a_new_nginx_beside_the_old_loses_nothing(disposable_stack: Stack, count: int) -> None:
    """Both accept from the one socket for a while; nothing waits for the new one, however long a request takes."""
    stack = disposable_stack
    with load(stack) as sent:
        for _ in range(count):
            old = stack.container("nginx")["Id"]
            stack("up", "--detach", "--wait", "--no-build", "--no-recreate", "--scale", "nginx=2", "nginx")
            run("docker", "stop", old)
            run("docker", "rm", old)
    assert [one["Id"] for one in stack.containers("nginx")] != [old]
    assert sent.lost() == []


@pytest.mark.slow
@pytest.mark.one_transport
def test_without_the_drain_the_same_restarts_lose_some(changed_stack: Callable[[str], Stack]) -> None:
    """The control: or the tests above would hold because nothing is measured."""
    assert restarts(changed_stack(NO_DRAIN), 6).lost() != []


@pytest.mark.slow_on_tcp
def test_an_answer_before_nginx_leaves_says_so_and_one_after_it_is_as_ever(disposable_stack: Stack) -> None:
    stack = disposable_stack
    assert stack.get("/echo").headers["Connection"] == "keep-alive"
    stack.exec("nginx", "touch", "/run/nginx/draining")
    wait_until(lambda: stack.get("/echo").headers["Connection"] == "close", "the drain is seen", 5)
    # Through the drain as without it: body, query, escapes, and the routes other than Django's.
    drained = stack.post("/echo/a%3Fb%2Fc?d=%20e", b"body")
    stack.exec("nginx", "rm", "/run/nginx/draining")
    wait_until(lambda: stack.get("/echo").headers["Connection"] == "keep-alive", "the drain is over", 5)
    plain = stack.post("/echo/a%3Fb%2Fc?d=%20e", b"body")
    assert drained.status_code == plain.status_code == 200
    names = ("method", "path", "query", "sha256", "length")
    assert [drained.json()[name] for name in names] == [plain.json()[name] for name in names]


@pytest.mark.slow_on_tcp
@pytest.mark.parametrize(
    "path", ["/static/probe/style.css", "/static/none", "/.env", "/errors/error.html", "/fail", "/echo/a%0Ab"]
)
def test_the_drain_changes_no_route(disposable_stack: Stack, path: str) -> None:
    stack = disposable_stack
    plain = stack.get(path)
    stack.exec("nginx", "touch", "/run/nginx/draining")
    try:
        wait_until(lambda: stack.get("/echo").headers["Connection"] == "close", "the drain is seen", 5)
        drained = stack.get(path)
    finally:
        stack.exec("nginx", "rm", "/run/nginx/draining")
    assert drained.status_code == plain.status_code
    # No browser asks for an error page by its name.
    assert drained.headers["Connection"] == "close" or path.startswith("/errors/")
    wait_until(lambda: stack.get("/echo").headers["Connection"] == "keep-alive", "the drain is over", 5)


@pytest.mark.slow_on_tcp
def test_what_comes_while_nginx_is_away_waits(disposable_stack: Stack) -> None:
    stack = disposable_stack
    stack("stop", "nginx")
    with socket.create_connection(stack.address(), timeout=30) as waiting:
        waiting.sendall(b"GET /echo HTTP/1.0\r\nHost: localhost\r\n\r\n")
        stack("start", "nginx")
        assert waiting.recv(30).startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow_on_tcp
def test_nginx_waits_for_nginx_socket_and_says_so(disposable_stack: Stack) -> None:
    stack = disposable_stack
    stack("rm", "--stop", "--force", "nginx-socket", "nginx")
    stack("up", "--detach", "--no-build", "nginx")
    wait_until(lambda: "waiting for nginx-socket" in stack.log("nginx"), "it says so", 10)
    stack("up", "--detach", "--no-build", "nginx-socket")
    wait_until(stack.serves, "served", 10)
    assert stack.container("nginx")["RestartCount"] == 0


@pytest.mark.slow_on_tcp
def test_nginx_follows_to_a_new_nginx_socket(disposable_stack: Stack) -> None:
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
        # It looks four times a second; the rest is for a busy machine.
        assert now - restarted < 5
    assert stack.container("nginx")["State"]["StartedAt"] == nginx


@pytest.mark.slow_on_tcp
def test_a_killed_master_takes_no_waiting_connection_with_it(disposable_stack: Stack) -> None:
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
    wait_until(lambda: not set(stack.processes("nginx")[2:]) & set(before), "workers are new", 10)
    assert stack.serves()


def test_the_client_address_is_the_one_that_the_published_port_sees(stack: Stack) -> None:
    network = stack.container("nginx-socket")["NetworkSettings"]["Networks"][f"{stack.project}_edge"]
    assert stack.get("/echo").json()["meta"]["REMOTE_ADDR"] == network["Gateway"]
