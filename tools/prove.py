"""`make prove`: deploys and faults under load on both transports, compared with the usual tutorial setup.

Prints a table and writes it to docs/measured/proof.md. Fails if a row loses more than it may.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import platform
import ssl
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import requests

from tests.support import runs
from tests.support.breaks import BREAKS, WRONG, Break, add_migration, put_back
from tests.support.site import Site
from tests.support.stack import ROOT, free_port, processes_of, run, wait_until
from tests.support.tls import SWAP, context
from tools.load import Load
from tools.walk import walk

PAGE = ROOT / "docs/measured/proof.md"
TRANSPORTS = ("tcp", "unix-socket")
# A whole proof must end by itself.
DEADLINE_SECONDS = 60 * 60
WORKERS = 4
NO_DRAIN = "tests/overrides/no-drain.yaml"
TLS = "overrides/tls.yaml"
# The restart policy and a start
GAP_SECONDS = 10


@dataclass(frozen=True)
class Row:
    """What one event did to the requests of a load. `allowed` None: the control, which must lose some."""

    transport: str
    event: str
    sent: int
    lost: int
    allowed: int | None
    seconds: float

    def holds(self) -> bool:
        """Return whether the promise of this row was kept."""
        return self.lost > 0 if self.allowed is None else self.lost <= self.allowed

    def line(self) -> str:
        """Return the row as a line of a Markdown table."""
        may = "must lose some" if self.allowed is None else str(self.allowed)
        verdict = "yes" if self.holds() else "**NO**"
        cells = (self.transport, self.event, f"{self.sent}", f"{self.lost}", may, f"{self.seconds:.0f}", verdict)
        return f"| {' | '.join(cells)} |"


@dataclass(frozen=True)
class Gap:
    """For how long no one was served after the holder of a socket was killed, in seconds."""

    transport: str
    event: str
    seconds: float

    def holds(self) -> bool:
        """Return whether the stack came back without help, and soon."""
        return self.seconds <= GAP_SECONDS

    def line(self) -> str:
        """Return the row as a line of a Markdown table."""
        verdict = "yes" if self.holds() else "**NO**"
        return f"| {self.transport} | {self.event} | {self.seconds:.1f} | {GAP_SECONDS} | {verdict} |"


def measured(site: Site, event: str, allowed: int | None, act: Callable[[], None], least: int = 0) -> Row:
    """Do something under load and count; go on until `least` requests were sent and the site serves."""
    began = time.monotonic()
    tls = context() if TLS in site.environment["COMPOSE_FILE"] else None
    port = int(site.environment["HTTPS_PORT" if tls else "HTTP_PORT"])
    # Over https, half of the clients open a connection for each request, with a handshake that reads the certificate.
    load_ = Load(
        "127.0.0.1", port, clients=4 if tls else 8, fresh_clients=4 if tls else 0, pause_seconds=0.005, tls=tls
    )
    with load_ as load:
        act()
        wait_until(lambda: serves(site, tls), f"serving after: {event}", 90)
        while load.requests < least and time.monotonic() - began < DEADLINE_SECONDS / 4:
            time.sleep(0.2)
    row = Row(site.transport, event, load.requests, len(load.failures), allowed, time.monotonic() - began)
    print(row.line(), flush=True)
    for failure in load.failures[: 5 if row.holds() else 20]:
        print(f"      {failure.second:6.1f} s  {failure.request}  {failure.reason[:110]}", flush=True)
    return row


def serves(site: Site, tls: ssl.SSLContext | None) -> bool:
    """Return whether the site answers; over https, if there is a context."""
    if not tls:
        return site.get("/version").status_code == 200
    connection = http.client.HTTPSConnection("localhost", int(site.environment["HTTPS_PORT"]), timeout=20, context=tls)
    with contextlib.closing(connection):
        connection.request("GET", "/version")
        return connection.getresponse().status == 200


def deploys(site: Site, count: int) -> None:
    """Deploy `count` releases, one after the other."""
    for number in range(count):
        site.change(f"release {number}")
        site.made("deploy")
        assert site.version() == f"release {number}"


def refused(site: Site, verb: str, broken: Break) -> None:
    """Type a verb that must refuse what is broken, with the reason, while what ran before serves."""
    version, before = site.version(), site.containers()
    try:
        broken.do(site)
        site.change("broken")
        assert broken.message in site.refused(verb), broken.name
        assert (site.version(), site.containers()) == (version, before), broken.name
    finally:
        put_back(site)


def change_limit(site: Site, count: int) -> None:
    """Change a limit in nginx/ and type `make up`, so many times."""
    file = site.folder / "nginx/http/client-limits.conf"
    text = file.read_text()
    try:
        for number in range(count):
            file.write_text(text.replace("connections:10m", f"connections:{11 + number}m"))
            before = site.containers("nginx")
            site.made("up")
            assert site.containers("nginx") != before
    finally:
        file.write_text(text)


def compose(site: Site, *arguments: str) -> None:
    """Type a `docker compose` command."""
    files = site.environment["COMPOSE_FILE"].replace("compose.tcp.yaml", f"compose.{site.transport}.yaml")
    environment = {**site.environment, "COMPOSE_FILE": files}
    done = run("docker", "compose", *arguments, cwd=site.folder, environment=environment)
    assert done.returncode == 0, done.stderr


def restart_nginx(site: Site, count: int) -> None:
    """Type `docker compose restart nginx`, so many times."""
    for _ in range(count):
        compose(site, "restart", "nginx")


def new_secret(site: Site) -> None:
    """Remove the secret key, and have `make up` make and take in another."""
    (site.folder / "secrets/django_secret_key").unlink()
    site.made("up")


def new_hosts(site: Site) -> None:
    """Add a host name, which nginx and Django both take in."""
    site.environment["DJANGO_ALLOWED_HOSTS"] = "localhost,127.0.0.1,[::1],added.example.com"
    site.made("up")
    address = f"http://127.0.0.1:{site.environment['HTTP_PORT']}/version"
    assert requests.get(address, headers={"Host": "added.example.com"}, timeout=20).status_code == 200


def switch_transport(site: Site) -> None:
    """Go over to the other transport, and back."""
    for transport in (*(name for name in TRANSPORTS if name != site.transport), site.transport):
        site.up(transport)
        assert site.serves_over() == transport


def slow_migration(site: Site) -> None:
    """Take in a migration of 30 s."""
    try:
        add_migration(site, "__import__('time').sleep(30)")
        site.change("after a slow migration")
        site.made("up")
        assert site.version() == "after a slow migration"
    finally:
        site.restore()


def changes(site: Site, count: int) -> list[Row]:
    """Change each part that can change while the stack runs."""
    return [
        measured(site, f"`make up` with a changed limit of nginx, {count} times", 0, lambda: change_limit(site, count)),
        measured(site, f"`docker compose restart nginx`, {count} times", 0, lambda: restart_nginx(site, count)),
        measured(site, "`make up` with a new secret key", 0, lambda: new_secret(site)),
        measured(site, "`make up` with one more host name", 0, lambda: new_hosts(site)),
        measured(site, "the other transport, and back", 0, lambda: switch_transport(site)),
        *(
            measured(site, f"`make up` refused: {broken.name}", 0, partial(refused, site, "up", broken))
            for broken in WRONG
        ),
        # Last: it has the name of the migration that fails, which would count as applied after it.
        measured(site, "`make up` with a migration of 30 s", 0, lambda: slow_migration(site)),
    ]


def in_any_order(site: Site, steps: int) -> Row:
    """Type verbs in an order that no one planned. The seed, which is shown, repeats it."""
    seed = int(time.time())
    event = f"{steps} verbs in random order, a third of them killed (seed {seed})"
    return measured(site, event, 0, lambda: walk(site, steps, seed))


def without_drain(site: Site) -> Row:
    """Restart nginx as above, but without its drain: the control of the rows above."""
    plain = site.environment["COMPOSE_FILE"]
    site.environment["COMPOSE_FILE"] = f"{plain}:{NO_DRAIN}"
    try:
        site.made("up")
        return measured(site, "control: nginx restarted 6 times, no drain", None, lambda: restart_nginx(site, 6))
    finally:
        site.environment["COMPOSE_FILE"] = plain
        site.made("up")


def new_certificates(site: Site, count: int) -> None:
    """Replace the certificate and its key, five times a second."""
    command = ("docker", "exec", name(site, "certificates"), "/venv/bin/python", "-c", SWAP, str(count), "new-keys")
    done = run(*command, seconds=DEADLINE_SECONDS)
    assert done.returncode == 0, done.stderr


def reload_nginx(site: Site, count: int) -> None:
    """Reload nginx, as is usual after a new certificate."""
    for _ in range(count):
        assert run("docker", "exec", name(site, "nginx"), "nginx", "-s", "reload").returncode == 0
        time.sleep(1)


def over_https(site: Site, count: int) -> list[Row]:
    """Replace the certificate while the site serves over https; the control is nginx's reload."""
    site.environment["COMPOSE_FILE"] += f":{TLS}"
    site.environment["HTTPS_PORT"] = str(free_port())
    site.made("up")
    return [
        measured(site, f"https: certificate and key replaced {count} times", 0, lambda: new_certificates(site, count)),
        measured(site, "control: nginx reloaded 10 times", None, lambda: reload_nginx(site, 10)),
    ]


def typed(site: Site, verb: str) -> None:
    """Type a make command."""
    site.made(verb)


def scaling(site: Site) -> None:
    """One container, three, one."""
    site.made("scale", "N=3")
    site.made("scale", "N=1")


def kill(*processes: str) -> None:
    """Kill without a chance to answer."""
    assert run("kill", "-KILL", *processes).returncode == 0


def name(site: Site, service: str, number: int = 0) -> str:
    """Return the name of a running container."""
    return site.containers(service)[number]


def processes(site: Site, service: str, number: int = 0) -> list[str]:
    """Return the process ids of a container, as this machine sees them; its PID 1 comes first."""
    return processes_of(name(site, service, number))


def restarted(site: Site, service: str, act: Callable[[], None]) -> None:
    """Do something that ends a container, and wait until its restart policy has brought it back."""
    container = name(site, service)

    def started() -> str:
        return run("docker", "inspect", "--format", "{{.State.StartedAt}} {{.State.Running}}", container).stdout

    before = started()
    act()
    wait_until(lambda: started() != before and "true" in started(), f"{service} is back", 60)


def single_request(site: Site, path: str, statuses: set[int]) -> None:
    """Send one request that is meant to go wrong, and check which status its client gets."""
    answer = requests.get(f"http://localhost:{site.environment['HTTP_PORT']}{path}", timeout=60)
    assert answer.status_code in statuses, f"{path}: {answer.status_code}"


def kill_master(site: Site) -> None:
    """Kill PID 1 of the only uwsgi container."""
    restarted(site, "uwsgi", lambda: kill(processes(site, "uwsgi")[0]))


def pause_one_of_two(site: Site) -> None:
    """Stop all processes of one replica; all that it had not accepted is answered by the other."""
    site.made("scale", "N=2")
    paused = name(site, "uwsgi", 1)
    run("docker", "pause", paused)
    time.sleep(5)
    run("docker", "unpause", paused)


def kill_one_of_two(site: Site) -> None:
    """Kill a whole replica while another serves."""
    site.made("scale", "N=2")
    kill(processes(site, "uwsgi", 1)[0])
    time.sleep(3)
    site.made("scale", "N=1")


def faults(site: Site) -> list[Row]:
    """Break one thing after the other. What may be lost is what the killed process had accepted."""
    slow = "/sleep/60000"
    return [
        measured(site, "a worker killed within a request", 0, lambda: single_request(site, "/kill", {502})),
        measured(site, "a worker out of memory", 1, lambda: single_request(site, "/allocate/700", {502})),
        measured(site, "a view that hangs, ended by harakiri (30 s)", 0, lambda: single_request(site, slow, {502})),
        measured(site, "uWSGI's master killed", WORKERS, lambda: kill_master(site)),
        measured(site, "one of two replicas killed", WORKERS, lambda: kill_one_of_two(site)),
        measured(site, "one of two replicas paused for 5 s", 0, lambda: pause_one_of_two(site)),
        measured(site, "an nginx worker killed", 8, lambda: kill(processes(site, "nginx")[-1])),
    ]


def gap(site: Site, service: str) -> Gap:
    """Kill the process that holds a socket, and measure how long no one is served; what waited in it is lost."""
    address = f"http://127.0.0.1:{site.environment['HTTP_PORT']}/version"

    def served() -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(address, timeout=1).status_code == 200
        return False

    kill(processes(site, service)[0])
    killed = time.monotonic()
    # nginx may still answer what it has taken: the gap begins with the kill, and ends once it serves for a second.
    wait_until(lambda: not served() or time.monotonic() - killed > 2, "the gap begins", 5)
    wait_until(served, f"serving after {service} was killed", 60)
    row = Gap(site.transport, f"{service} killed", time.monotonic() - killed)
    print(row.line(), flush=True)
    return row


def control(folder: Path, transport: str) -> Row:
    """Do it the tutorials' way: uWSGI binds its own socket, and its container is recreated."""
    site = Site(folder, transport)
    site.project += "-control"
    site.environment["COMPOSE_PROJECT_NAME"] = site.project
    files = ["compose.yaml", f"compose.{transport}.yaml", f"tests/overrides/control-{transport}.yaml"]
    compose = ["docker", "compose", *(word for file in files for word in ("--file", file))]

    def recreate() -> None:
        for _ in range(3):
            again = ("up", "--detach", "--wait", "--no-deps", "--force-recreate", "uwsgi")
            done = run(*compose, *again, cwd=site.folder, environment=site.environment)
            assert done.returncode == 0, done.stderr

    try:
        run("ops/run", "setup", cwd=site.folder, environment=site.environment)
        started = run(
            *compose, "up", "--build", "--detach", "--wait", cwd=site.folder, seconds=300, environment=site.environment
        )
        assert started.returncode == 0, started.stderr
        return measured(site, "control: uWSGI's own socket, recreated 3 times", None, recreate)
    finally:
        run(*compose, "down", "--volumes", "--rmi", "local", cwd=site.folder, environment=site.environment)


def prove(folder: Path, transport: str, releases: int, least: int) -> list[Row | Gap]:
    """Return all rows of one transport."""
    site = Site(folder, transport)
    try:
        site.up()
        return [
            measured(site, f"{releases} releases deployed", 0, lambda: deploys(site, releases), least),
            measured(site, "rollback", 0, lambda: typed(site, "rollback")),
            measured(site, "scale 1, 3, 1", 0, lambda: scaling(site)),
            measured(site, "reload", 0, lambda: typed(site, "reload")),
            measured(site, "restart of uwsgi", 0, lambda: typed(site, "restart")),
            *(
                measured(site, f"`make deploy` refused: {broken.name}", 0, partial(refused, site, "deploy", broken))
                for broken in BREAKS
            ),
            *changes(site, releases),
            in_any_order(site, releases),
            without_drain(site),
            *faults(site),
            gap(site, "nginx-socket"),
            gap(site, "uwsgi-socket"),
            gap(site, "nginx"),
            # For 100 s, as long as 100 000 requests take
            *over_https(site, 25 * releases),
        ]
    finally:
        site.remove()


def page(rows: Sequence[Row | Gap], seconds: float) -> str:
    """Return the tables as a page of documentation."""
    head = "| transport | event | requests | lost | may lose | seconds | holds |\n|---|---|---|---|---|---|---|"
    table = "\n".join(row.line() for row in rows if isinstance(row, Row))
    gap_head = "| transport | event | gap in seconds | at most | holds |\n|---|---|---|---|---|"
    gaps = "\n".join(row.line() for row in rows if isinstance(row, Gap))
    return f"""# Proof

Written by `make prove` on {time.strftime("%F")}, in {seconds / 60:.0f} minutes: {platform.machine()},
{os.cpu_count()} cores, {platform.system()} {platform.release()}. Clients use keep-alive connections and
never retry: half of the requests POST a body whose checksum must match, and two clients are always in the middle
of a 3 s request. A request is lost when its answer is not the right one with status 200.

{head}
{table}

A killed process loses the requests it had accepted; "may lose" is that number. The controls show that a lost request
would be seen: nginx without its drain, nginx's reload, which closes connections that wait for a request, and the usual
tutorial setup, in which uWSGI binds its own socket and its container is recreated.

When the process that holds the published port or the queue is killed, the requests that wait there are lost.
What counts is how long no one is served:

{gap_head}
{gaps}
"""


def main() -> int:
    """Prove, print, write the page and return 1 if a row does not hold."""
    asked = argparse.ArgumentParser(prog="prove", description=__doc__)
    asked.add_argument("--releases", type=int, default=20)
    asked.add_argument("--requests", type=int, default=100_000)
    options = asked.parse_args()
    began = time.monotonic()
    rows: list[Row | Gap] = []
    with runs.begin(), tempfile.TemporaryDirectory() as folder:
        for transport in TRANSPORTS:
            for role in ("proof", "control"):
                place = Path(folder) / f"{role}-{transport}"
                place.mkdir()
                if role == "proof":
                    rows += prove(place, transport, options.releases, options.requests)
                else:
                    rows.append(control(place, transport))
    PAGE.write_text(page(rows, time.monotonic() - began))
    print(f"\n{sum(row.holds() for row in rows)} of {len(rows)} rows hold; written to {PAGE.relative_to(ROOT)}")
    return 0 if all(row.holds() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
