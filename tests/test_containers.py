"""Every service runs with the least it needs."""

import pytest

from tests.support import Stack, run, wait_until

SERVICES = ("nginx", "listener", "uwsgi", "release")
LONG_RUNNING = SERVICES[:3]


@pytest.mark.parametrize("service", SERVICES)
def test_container_has_no_rights_to_lose(stack: Stack, service: str) -> None:
    host = stack.container(service)["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert 0 < host["PidsLimit"] <= 128
    assert 0 < host["Memory"] <= 512 << 20
    assert not host["Privileged"]


@pytest.mark.parametrize("service", SERVICES)
def test_log_is_rotated(stack: Stack, service: str) -> None:
    assert stack.container(service)["HostConfig"]["LogConfig"]["Config"] == {"max-file": "3", "max-size": "10m"}


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_every_process_is_an_ordinary_user(stack: Stack, service: str) -> None:
    told = stack.exec(service, "sh", "-c", "grep -h -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/[0-9]*/status")
    values = {tuple(line.split()) for line in told.splitlines()}
    assert all(int(value[1]) >= 10001 for value in values if value[0] == "Uid:")
    assert {value for value in values if value[0] != "Uid:"} == {
        ("CapEff:", "0" * 16),
        ("CapBnd:", "0" * 16),
        ("NoNewPrivs:", "1"),
        ("Seccomp:", "2"),
    }


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_nothing_but_memory_and_volumes_can_be_written(stack: Stack, service: str) -> None:
    found = stack.exec(
        service,
        "sh",
        "-c",
        "find / -path /proc -prune -o -path /dev -prune -o -type d -writable -print 2>/dev/null || true",
    )
    wire = {"/run/wire"} if stack.transport == "unix-socket" else set()
    allowed = {
        "nginx": {"/tmp", "/run/nginx"},
        "listener": {"/run/zerg"} | wire,
        "uwsgi": {"/tmp", "/run/uwsgi", "/data"},
    }
    assert {path for path in found.split() if not path.startswith("/tmp/")} == allowed[service]


def test_images_hold_no_tools_of_the_build(stack: Stack) -> None:
    for service in LONG_RUNNING:
        found = stack.exec(
            service, "sh", "-c", "command -v gcc cc pip pip3 make curl wget || true; ls /var/lib/apt/lists"
        )
        assert found == "", service


def test_secret_is_in_a_file_and_nowhere_else(stack: Stack) -> None:
    key = stack.exec("uwsgi", "cat", "/run/secrets/django_secret_key").strip()
    assert len(key) >= 50
    assert key not in str(stack.container("uwsgi"))
    assert key not in stack.exec("uwsgi", "cat", "/proc/1/environ")
    assert key not in stack("logs")


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_health_check_passes_and_says_what_it_proves(stack: Stack, service: str) -> None:
    health = stack.container(service)["State"]["Health"]
    assert health["Status"] == "healthy"
    said = health["Log"][-1]["Output"]
    assert ("/healthz answers" if service != "listener" else "waiting") in said


CHECKS = {"nginx": "healthcheck", "listener": "pool.py", "uwsgi": "healthcheck.py"}


@pytest.mark.parametrize(("service", "hung"), [("nginx", "uwsgi"), ("listener", "listener"), ("uwsgi", "uwsgi")])
def test_health_check_fails_when_what_it_proves_hangs(stack: Stack, service: str, hung: str) -> None:
    _, *children = stack.processes(hung)
    try:
        run("kill", "-STOP", *children)
        assert run("docker", "exec", stack.container(service)["Id"], CHECKS[service]).returncode != 0
    finally:
        run("kill", "-CONT", *children)
    wait_until(stack.serves, "served again", 20)
