"""overrides/host-network.yaml: the published port without docker-proxy, and nginx without a network."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkout import Checkout
from tests.support.stack import free_port, run, wait_until

pytestmark = pytest.mark.needs_sample


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout that has it in .env."""
    folder: Path = tmp_path_factory.mktemp("host-network")
    checkout = Checkout(folder, "host-network")
    checkout.set("COMPOSE_FILE", "compose.yaml:compose.unix-socket.yaml:overrides/host-network.yaml")
    try:
        yield checkout
    finally:
        checkout.remove()


def test_it_serves_pages_and_files_at_the_same_address(site: Checkout) -> None:
    message = site.made("up-unix")
    assert f"Ready: http://127.0.0.1:{site.environment['HTTP_PORT']}/" in message
    page = site.get("/")
    assert page.status_code == 200
    assert site.get("/api/request").json()["transport"] == "unix-socket"
    assert site.get("/static/home/style.css").status_code == 200


def test_it_listens_where_the_settings_say_and_nowhere_else(site: Checkout) -> None:
    """An address of this machine that is not HTTP_ADDRESS: on a host's network nothing else keeps others out."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", int(site.environment["HTTP_PORT"])), timeout=5)


def modes(site: Checkout) -> dict[str, list[str]]:
    """Return network and hardening of the two containers that clients meet."""
    shown = "{{.HostConfig.NetworkMode}} {{.HostConfig.CapDrop}} {{.HostConfig.ReadonlyRootfs}}"
    return {
        service: run("docker", "inspect", "--format", shown, site.containers(service)[0]).stdout.split()
        for service in ("nginx-socket", "nginx")
    }


def test_only_what_holds_the_socket_is_on_the_hosts_network(site: Checkout) -> None:
    assert modes(site) == {"nginx-socket": ["host", "[ALL]", "true"], "nginx": ["none", "[ALL]", "true"]}


def test_the_port_is_served_again_after_its_holder_was_killed(site: Checkout) -> None:
    """nginx-socket cannot bind the port again until nginx has closed the old socket."""
    holder = site.containers("nginx-socket")[0]
    before = run("docker", "inspect", "--format", "{{.State.StartedAt}} {{.State.Pid}}", holder).stdout.split()
    assert run("kill", "-KILL", before[1]).returncode == 0

    def healthy_again() -> bool:
        shown = "{{.State.StartedAt}} {{.State.Health.Status}}"
        return run("docker", "inspect", "--format", shown, holder).stdout.split()[1:] == ["healthy"]

    wait_until(healthy_again, "nginx-socket has bound the port again", 20)
    wait_until(lambda: site.get("/").status_code == 200, "served again", 5)


@pytest.mark.slow
def test_over_tcp_it_serves_as_well(site: Checkout) -> None:
    site.made("up-tcp")
    assert site.get("/api/request").json()["transport"] == "tcp"
    wire = [f"{site.project}_wire", "[ALL]", "true"]
    assert modes(site) == {"nginx-socket": ["host", "[ALL]", "true"], "nginx": wire}


@pytest.mark.slow
def test_a_port_that_is_taken_is_named(site: Checkout) -> None:
    site.made("down")
    with socket.socket() as other:
        port = free_port()
        other.bind(("127.0.0.1", port))
        other.listen()
        assert f"127.0.0.1:{port} is in use" in site.refused("up-unix", HTTP_PORT=str(port))
