"""What is called TCP is TCP, and what is called a Unix socket is one."""

import pytest

from tests.support.stack import Stack

LISTENING = "0A"


def listening_ports(stack: Stack, service: str) -> set[int]:
    """Return the TCP ports that anything listens on in a container's network namespace."""
    table = stack.exec(service, "sh", "-c", "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null")
    rows = [line.split() for line in table.splitlines() if ":" in line]
    ports = set()
    for row in rows:
        address, _, port = row[1].rpartition(":")
        # 127.0.0.11 is Docker's own name server, in every container with a network
        if row[3] == LISTENING and address != "0B00007F":
            ports.add(int(port, 16))
    return ports


def sockets_in(stack: Stack, service: str, folder: str) -> str:
    """Return the socket files below a folder."""
    return stack.exec(service, "sh", "-c", f"find {folder} -type s 2>/dev/null || true")


def test_nginx_names_the_transport(stack: Stack) -> None:
    assert stack.get("/echo").json()["meta"]["TRANSPORT"] == stack.transport


def test_uwsgi_socket_is_bound_where_the_transport_says(stack: Stack) -> None:
    if stack.transport == "tcp":
        assert listening_ports(stack, "uwsgi-socket") == {20001}
        assert sockets_in(stack, "nginx", "/run") == "/run/pool/nginx.sock\n"
    else:
        assert listening_ports(stack, "uwsgi-socket") == set()
        assert sockets_in(stack, "nginx", "/run/wire") == "/run/wire/uwsgi.sock\n"


def test_uwsgi_itself_listens_on_no_port(stack: Stack) -> None:
    assert listening_ports(stack, "uwsgi") == set()


def test_nginx_takes_the_port_that_nginx_socket_has_bound(stack: Stack) -> None:
    """In its own network it listens only for its health check; 8080 there would mean that it bound a socket itself."""
    assert listening_ports(stack, "nginx-socket") == {8080}
    assert listening_ports(stack, "nginx") == {8081}


def test_nginx_has_no_network_but_the_wire(stack: Stack) -> None:
    networks = [name.rpartition("_")[2] for name in stack.container("nginx")["NetworkSettings"]["Networks"]]
    assert networks == (["wire"] if stack.transport == "tcp" else ["none"])


def test_only_nginx_socket_is_published_and_on_loopback(stack: Stack) -> None:
    for service in ("nginx-socket", "nginx", "uwsgi-socket", "uwsgi", "release"):
        ports = stack.container(service)["NetworkSettings"]["Ports"] or {}
        bound = {one["HostIp"] for published in ports.values() for one in published or []}
        assert bound == ({"127.0.0.1"} if service == "nginx-socket" else set()), service


def test_only_nginx_and_uwsgi_socket_share_the_wire(stack: Stack) -> None:
    joined = set()
    for service in ("nginx-socket", "nginx", "uwsgi-socket", "uwsgi", "release"):
        inspected = stack.container(service)
        networks = {name.rpartition("_")[2] for name in inspected["NetworkSettings"]["Networks"]}
        mounts = {mount["Destination"] for mount in inspected["Mounts"]}
        if "wire" in networks or "/run/wire" in mounts:
            joined.add(service)
    assert joined == {"nginx", "uwsgi-socket"}


def test_only_nginx_can_take_the_published_port(stack: Stack) -> None:
    """The pool's socket belongs to nginx's group, and no other container mounts it."""
    result = stack.exec("nginx", "stat", "--format", "%u:%g %a", "/run/pool/nginx.sock", "/run/pool")
    assert result.splitlines() == ["10003:10101 770", "10003:10101 750"]
    services = ("nginx-socket", "nginx", "uwsgi-socket", "uwsgi", "release")
    volumes = {
        service: {mount.get("Name", "").rpartition("_")[2] for mount in stack.container(service)["Mounts"]}
        for service in services
    }
    assert [service for service in services if "nginx-pool" in volumes[service]] == ["nginx-socket", "nginx"]


@pytest.mark.parametrize("service", ["uwsgi", "uwsgi-socket", "nginx"])
def test_project_has_no_way_out(stack: Stack, service: str) -> None:
    routes = stack.exec(service, "cat", "/proc/net/route").splitlines()[1:]
    assert all(line.split()[1] != "00000000" for line in routes), routes
