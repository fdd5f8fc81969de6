"""Every service runs with the fewest privileges it needs."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from tests.support.stack import Stack, run, wait_until

SERVICES = ("nginx-socket", "nginx", "uwsgi-socket", "uwsgi", "release")
LONG_RUNNING = SERVICES[:4]
# Compose mounts its configs and secrets from the host, each a single file, read-only.
TRANSPORT_FILES = {"tcp.conf", "unix-socket.conf", "tcp.ini", "unix-socket.ini"}
MOUNTED_FILES = TRANSPORT_FILES | {"client-timeouts.conf", "django_secret_key"}


def privileges(result: dict[str, Any]) -> dict[str, bool]:
    """Return the rows of docker-bench-security's section 5 (containers), each with whether it is met.

    Left out, since they are the host's: 5.2 AppArmor and 5.3 SELinux (Docker applies what the host has), 5.28
    (images are built here). Exceptions: 5.15 wants `on-failure:5`; here a graceful reload ends the process
    with 0 and the restart policy brings it back, so it is `unless-stopped`, and `make doctor` finds loops.
    """
    host, config = result["HostConfig"], result["Config"]
    binds = [mount for mount in result["Mounts"] if mount["Type"] == "bind"]
    published = [one for ports in (result["NetworkSettings"]["Ports"] or {}).values() for one in ports or []]
    return {
        "5.4 capabilities": host["CapDrop"] == ["ALL"] and not host["CapAdd"],
        "5.5 not privileged": not host["Privileged"],
        "5.6 no directories of the host": {mount["Source"].rpartition("/")[2] for mount in binds} <= MOUNTED_FILES,
        "5.8 no privileged ports": all(int(one["HostPort"]) >= 1024 for one in published),
        "5.9 no needless ports": len(published) <= ("nginx-socket" in result["Name"]),
        "5.10 not the host's network": host["NetworkMode"] != "host",
        "5.11 memory": 0 < host["Memory"] <= 512 << 20,
        "5.12 cpu": host["CpuShares"] >= 1024,
        "5.13 read-only": host["ReadonlyRootfs"],
        "5.14 one interface": {one["HostIp"] for one in published} <= {"127.0.0.1"},
        "5.15 restart policy": host["RestartPolicy"]["Name"] in ("unless-stopped", "no"),
        "5.16 processes": host["PidMode"] != "host",
        "5.17 ipc": host["IpcMode"] == "private",
        "5.18 devices": not host["Devices"] and not host["DeviceRequests"],
        "5.19 ulimit": any(one["Name"] == "nofile" and one["Hard"] <= 16384 for one in host["Ulimits"] or []),
        "5.20 mount propagation": all(mount["Propagation"] != "shared" for mount in binds),
        "5.21 uts": host["UTSMode"] != "host",
        "5.22 seccomp": not any("seccomp" in one for one in host["SecurityOpt"]),
        "5.25 cgroup": not host["CgroupParent"],
        "5.26 no new privileges": "no-new-privileges:true" in host["SecurityOpt"],
        "5.27 health check": "release" in result["Name"] or bool(config["Healthcheck"]["Test"]),
        "5.29 processes limited": 0 < host["PidsLimit"] <= 128,
        "5.30 not the default bridge": "bridge" not in result["NetworkSettings"]["Networks"],
        "5.31 user namespace": host["UsernsMode"] != "host",
        "5.32 not Docker's socket": not any("docker.sock" in mount["Source"] for mount in result["Mounts"]),
    }


@pytest.mark.parametrize("service", SERVICES)
def test_container_passes_docker_bench(stack: Stack, service: str) -> None:
    """C1 to C12, C16."""
    rows = privileges(stack.container(service))
    assert [row for row, met in rows.items() if not met] == []


@pytest.mark.one_transport
@pytest.mark.parametrize("service", SERVICES)
def test_image_passes_docker_bench(stack: Stack, service: str) -> None:
    """Section 4: 4.1 user, 4.8 setuid, 4.9 COPY, 4.10 secrets.

    Exceptions: 4.5 content trust needs a registry; 4.6 health checks are in compose.yaml, next to
    the timeouts they belong to, and not in the image.
    """
    image = stack.container(service)["Config"]["Image"]
    uid = json.loads(run("docker", "image", "inspect", image).stdout)[0]["Config"]["User"].partition(":")[0]
    assert int(uid) >= 10001
    history = run("docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image).stdout
    assert not re.search(r"^ADD |token|password|secret_key=", history, re.MULTILINE | re.IGNORECASE)
    setuid = ("--entrypoint", "find", image, "/", "-xdev", "-type", "f", "-perm", "/6000")
    found = run("docker", "run", "--rm", "--network", "none", "--user", "0", *setuid)
    assert (found.returncode, found.stdout) == (0, ""), found


@pytest.mark.parametrize("service", SERVICES)
def test_log_is_rotated(stack: Stack, service: str) -> None:
    assert stack.container(service)["HostConfig"]["LogConfig"]["Config"] == {"max-file": "3", "max-size": "10m"}


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_every_process_is_an_ordinary_user(stack: Stack, service: str) -> None:
    result = stack.exec(
        service, "sh", "-c", "grep -h -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/[0-9]*/status"
    )
    values = {tuple(line.split()) for line in result.splitlines()}
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
        "nginx-socket": {"/run/pool"},
        "nginx": {"/tmp", "/run/nginx", "/var/tmp"},
        "uwsgi-socket": {"/run/pool"} | wire,
        "uwsgi": {"/tmp", "/run/uwsgi", "/data", "/data/media", "/data/private", "/var/tmp"},
    }
    assert {path for path in found.split() if not path.startswith(("/tmp/", "/var/tmp/"))} == allowed[service]


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_what_can_be_written_cannot_be_run(stack: Stack, service: str) -> None:
    """C4: every file system in memory is noexec, nosuid and nodev; what is mounted from the host is read-only."""
    mounts = [line.split() for line in stack.exec(service, "cat", "/proc/mounts").splitlines()]
    in_memory = {fields[1]: set(fields[3].split(",")) for fields in mounts if fields[2] == "tmpfs"}
    # /dev itself holds the devices, and Docker masks files of /proc and /sys with empty, read-only ones.
    ours = {place: flags for place, flags in in_memory.items() if not re.match("/dev$|/proc|/sys", place)}
    assert "/tmp" in ours or service.endswith("-socket")
    assert {place for place, flags in ours.items() if not {"noexec", "nosuid", "nodev"} <= flags} == set()
    result = stack.container(service)["Mounts"]
    assert [mount["Destination"] for mount in result if mount["Type"] == "bind" and mount["RW"]] == []


@pytest.mark.one_transport
def test_images_hold_no_tools_of_the_build(stack: Stack) -> None:
    for service in LONG_RUNNING:
        found = stack.exec(
            service, "sh", "-c", "command -v gcc cc pip pip3 make curl wget || true; ls /var/lib/apt/lists"
        )
        assert found == "", service


@pytest.mark.one_transport
def test_secret_is_in_a_file_and_nowhere_else(stack: Stack) -> None:
    key = stack.exec("uwsgi", "cat", "/run/secrets/django_secret_key").strip()
    assert len(key) >= 50
    assert key not in str(stack.container("uwsgi"))
    assert key not in stack.exec("uwsgi", "cat", "/proc/1/environ")
    assert key not in stack("logs")


def in_layers(image: str, wanted: bytes) -> bool:
    """Return whether bytes occur in any layer of an image."""
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
        assert saving.stdout is not None
        tail, found = b"", False
        while chunk := saving.stdout.read(1 << 20):
            found = found or wanted in tail + chunk
            tail = chunk[-len(wanted) :]
    assert saving.returncode == 0
    return found


@pytest.mark.slow
@pytest.mark.one_transport
@pytest.mark.parametrize("service", LONG_RUNNING)
def test_no_layer_holds_the_secret(stack: Stack, service: str) -> None:
    """C7."""
    image = stack.container(service)["Config"]["Image"]
    key = stack.exec("uwsgi", "cat", "/run/secrets/django_secret_key").strip().encode()
    assert in_layers(image, b"etc/nginx/site.conf" if service == "nginx" else b"uwsgi"), "the search works"
    assert not in_layers(image, key)


@pytest.mark.parametrize("service", ["nginx", "uwsgi", "uwsgi-socket"])
def test_every_network_of_what_runs_code_is_internal(stack: Stack, service: str) -> None:
    """C9: no way out and no names from outside, which Docker resolves in other networks only."""
    joined = [name for name in stack.container(service)["NetworkSettings"]["Networks"] if name != "none"]
    inspect = ("docker", "network", "inspect", "--format", "{{.Internal}}")
    internal = run(*inspect, *joined).stdout.split() if joined else []
    assert internal == ["true"] * len(joined)
    assert joined or service != "uwsgi"


@pytest.mark.parametrize("service", LONG_RUNNING)
def test_health_check_passes_and_says_what_it_proves(stack: Stack, service: str) -> None:
    health = stack.container(service)["State"]["Health"]
    assert health["Status"] == "healthy"
    message = health["Log"][-1]["Output"]
    # The probe has no /healthz: uwsgi answers for it.
    assert ("waiting" if service.endswith("-socket") else "/healthz answers 200") in message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("service", "hung"), [("nginx", "uwsgi"), ("uwsgi-socket", "uwsgi-socket"), ("uwsgi", "uwsgi")]
)
def test_health_check_fails_when_what_it_proves_hangs(stack: Stack, service: str, hung: str) -> None:
    # A request that an earlier test gave up is cut off by and by, and its worker is followed by a new one.
    wait_until(lambda: stack.busy_workers() == 0, "the workers are free", 20)
    _, *children = stack.processes(hung)
    try:
        run("kill", "-STOP", *children)
        check = "healthcheck" if service == "nginx" else "healthcheck.py"
        assert run("docker", "exec", stack.container(service)["Id"], check).returncode != 0
    finally:
        run("kill", "-CONT", *children)
    wait_until(stack.serves, "served again", 20)
