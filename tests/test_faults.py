"""Each fault below the stack has one answer, the same on both transports, and the stack recovers without help."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.stack import Stack, run, wait_until

JSON = {"Accept": "application/json"}
# More than post-buffering and client_body_buffer_size: it passes through a file.
BODY = b"x" * 1_000_000


@contextmanager
def full(stack: Stack, service: str, folder: str) -> Iterator[None]:
    """Fill a folder in memory of a container, and empty it at the end."""
    stack.exec(service, "sh", "-c", f"dd if=/dev/zero of={folder}/full bs=1M count=500 2>/dev/null || true")
    try:
        yield
    finally:
        stack.exec(service, "rm", f"{folder}/full")


def test_a_full_tmp_refuses_nothing(stack: Stack) -> None:
    """Bodies are on disk."""
    with full(stack, "nginx", "/tmp"), full(stack, "uwsgi", "/tmp"):
        assert stack.post("/echo", BODY).json()["length"] == len(BODY)


@pytest.mark.one_transport
def test_a_full_disk_refuses_uploads_and_nothing_else(changed_stack: Callable[[str], Stack]) -> None:
    """F7."""
    stack = changed_stack("small-disk")
    for service, status in (("nginx", 500), ("uwsgi", 502)):
        with full(stack, service, "/var/tmp"):
            refused = stack.post("/echo", BODY, headers=JSON)
            assert (refused.status_code, refused.json()["status"]) == (status, status)
            assert stack.get("/echo").status_code == 200
        assert stack.post("/echo", BODY).json()["length"] == len(BODY)


@pytest.mark.slow
def test_starts_again_after_all_was_killed(disposable_stack: Stack) -> None:
    """F18: no process had the time to remove its socket."""
    services = ("nginx-socket", "nginx", "uwsgi-socket", "uwsgi")
    before = [disposable_stack.container(service)["State"]["StartedAt"] for service in services]
    run("kill", "-KILL", *(str(disposable_stack.container(service)["State"]["Pid"]) for service in services))
    wait_until(
        lambda: all(
            disposable_stack.container(service)["State"]["StartedAt"] != began
            for service, began in zip(services, before, strict=True)
        ),
        "all four have started again",
    )
    wait_until(disposable_stack.serves, "served again")


def addresses(stack: Stack, service: str) -> set[str]:
    """Return the addresses a container has in its networks."""
    return {one["IPAddress"] for one in stack.container(service)["NetworkSettings"]["Networks"].values()}


@pytest.mark.slow
@pytest.mark.parametrize("service", ["uwsgi-socket", "uwsgi"])
def test_nginx_follows_to_a_new_address(disposable_stack: Stack, service: str) -> None:
    """F24: over a Unix socket there is no address to follow, but a new socket."""
    stack = disposable_stack
    before = addresses(stack, service)
    nginx = stack.container("nginx")["State"]["StartedAt"]
    stack("rm", "--stop", "--force", service)
    # Takes the address that is free now.
    network = {"uwsgi-socket": "wire", "uwsgi": "inside"}[service]
    squatter = f"{stack.project}-squatter"
    takes_it = service == "uwsgi" or stack.transport == "tcp"
    try:
        if takes_it:
            image = stack.container("nginx")["Config"]["Image"]
            sleep = ("--entrypoint", "sleep", image, "120")
            assert (
                run(
                    "docker", "run", "--detach", "--name", squatter, "--network", f"{stack.project}_{network}", *sleep
                ).returncode
                == 0
            )
        stack("up", "--detach", "--no-deps", service)
        wait_until(stack.serves, "served again", 20)
        assert (addresses(stack, service) != before) == takes_it
        assert stack.container("nginx")["State"]["StartedAt"] == nginx
    finally:
        run("docker", "rm", "--force", squatter)


@pytest.mark.slow
def test_running_out_of_file_descriptors_passes(changed_stack: Callable[[str], Stack]) -> None:
    """F27."""
    stack = changed_stack("few-files")
    idle: list[socket.socket] = []
    address = stack.address()
    try:
        for _ in range(200):
            connection = socket.create_connection(address, timeout=5)
            connection.sendall(b"GET /echo HTTP/1.1\r\nHost: localhost\r\n\r\n")
            idle.append(connection)
        wait_until(lambda: "Too many open files" in stack.log("nginx"), "nginx says so in its log", 10)
        answers = {status_of(connection) for connection in idle}
        assert answers <= {"200", "500", "503", None}, answers
        assert "200" in answers
    finally:
        for connection in idle:
            connection.close()
    wait_until(stack.serves, "served again", 10)


def status_of(connection: socket.socket) -> str | None:
    """Return the status that has arrived on a connection, None if nothing has."""
    connection.settimeout(0.2)
    try:
        answer = connection.recv(4096)
    except (TimeoutError, ConnectionResetError):
        return None
    return answer.split(b" ")[1].decode() if answer else None
