"""Machines and users: a bare Debian 13 goes from nothing to Ready, and no verb needs root's rights."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops import base_image
from tests.support.checkout import Checkout
from tests.support.stack import CHECKOUT, run, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.one_transport, pytest.mark.needs_sample]
NAME = f"test-{CHECKOUT}-machine"
# What a shell on a network with its own mirrors or its own CA has set (x-build and ca-bundle in compose.yaml)
NETWORK = {name: os.environ[name] for name in ("APT_MIRROR", "PIP_INDEX_URL", "SSL_CERT_FILE") if name in os.environ}
# Of what termios.tcgetattr returns
LOCAL_MODES = 3
BUNDLE = "/etc/machine-ca.pem"
FETCH = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8080/').status)"


class Machine:
    """A bare Debian 13, as a container with the rights to run an engine of its own."""

    def __init__(self, repository: Path) -> None:
        network = {**NETWORK, "SSL_CERT_FILE": BUNDLE} if "SSL_CERT_FILE" in NETWORK else NETWORK
        self.environment = [word for pair in network.items() for word in ("--env", "=".join(pair))]
        bundle = ["--volume", f"{NETWORK['SSL_CERT_FILE']}:{BUNDLE}:ro"] if "SSL_CERT_FILE" in NETWORK else []
        done = run(
            *("docker", "run", "--detach", "--init", "--name", NAME, "--hostname", "bare"),
            # The engine in it sorts its containers into the groups of this machine, as this machine's own does.
            *("--privileged", "--cgroupns", "host"),
            # An overlay cannot be made on another one, so the engine's files are not in the container's own.
            *("--volume", "/var/lib/docker", "--volume", f"{repository}:/mysite.bundle:ro", *bundle),
            *(base_image.name(), "sleep", "infinity"),
        )
        assert done.returncode == 0, done.stderr

    def type(self, command: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Type a command as root; its exit code is the caller's to judge."""
        return run("docker", "exec", *self.environment, NAME, "sh", "-euc", command, seconds=seconds)

    def typed(self, command: str, seconds: float = 600) -> str:
        """Type a command that must succeed and return what it prints."""
        done = self.type(command, seconds)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A bare machine that can reach this repository as a git bundle."""
    base_image.ensure(base_image.name())
    source = Checkout(tmp_path, "machine").folder
    commit = "git init -q . && git add -A && git -c user.name=a -c user.email=a@example.com commit -qm a"
    done = run("sh", "-euc", f"{commit} && git bundle create -q repository.bundle HEAD", cwd=source)
    assert done.returncode == 0, done.stderr
    try:
        yield Machine(source / "repository.bundle")
    finally:
        run("docker", "rm", "--force", "--volumes", NAME)


@pytest.mark.timeout(900)
@pytest.mark.xdist_group("bare-machine")
def test_a_bare_debian_13_goes_from_nothing_to_ready(machine: Machine) -> None:
    """Only what README asks for is installed: the engine, Python and the base image are the work of `make up`."""
    assert machine.type("command -v docker || command -v python3 || command -v make").returncode != 0
    machine.typed("apt-get update && apt-get install --yes git make")
    words = machine.typed("git clone --quiet /mysite.bundle /srv/mysite && cd /srv/mysite && make up")
    assert "Ready: http://127.0.0.1:8080/ over tcp, 2 workers" in words
    assert machine.typed(f'python3 -c "{FETCH}"') == "200\n"
    containers = (
        "docker ps --all --quiet | sort | xargs docker inspect --format '{{.Name}} {{.Id}} {{.State.StartedAt}}'"
    )
    before = machine.typed(containers)
    assert len(before.splitlines()) == 5, before
    assert "Ready: " in machine.typed("cd /srv/mysite && make up")
    assert machine.typed(containers) == before


class User(Checkout):
    """A copy of this repository that belongs to a user in group docker, who types the commands."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder, "user")
        self.name = name
        self.environment["HTTP_PORT"] = str(low_port())
        self.own()

    def own(self) -> None:
        """Make every file the user's."""
        run("chown", "--recursive", f"{self.name}:", str(self.folder))

    def command(self, *words: str) -> list[str]:
        """Return a command as the user types it: with their groups, their home and nothing of root's environment."""
        user = ("setpriv", f"--reuid={self.name}", f"--regid={self.name}", "--init-groups", "--reset-env")
        return [*user, "env", *(f"{name}={value}" for name, value in {**NETWORK, **self.environment}.items()), *words]

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Type a make command; its exit code is the caller's to judge."""
        words = (*(f"{name}={value}" for name, value in environment.items()), "make", *arguments)
        return run(*self.command("env", *words), seconds=280, cwd=self.folder)

    def typed(self, line: str) -> str:
        """Type a make command as people do; it must succeed. Returns what is seen."""
        verb, *words = line.split()
        if verb in GO_ON:
            return self.follow(verb)
        if verb == "attach":
            return self.attach()
        if verb == "trace":
            words = [f"ID={self.get('/nowhere').headers['X-Request-ID']}"]
        if verb == "bring-database":
            run("docker", "cp", f"{self.containers('uwsgi')[0]}:/data/db.sqlite3", str(self.folder / "copy.sqlite3"))
            self.own()
        if verb == "deploy":
            run(*self.command("sh", "-c", "echo '# changed' >>app/config/urls.py"), cwd=self.folder)
        done = self.make(verb, *words)
        seen = done.stdout + done.stderr
        assert done.returncode == 0, f"make {line}\n{seen}"
        return seen

    def follow(self, verb: str) -> str:
        """Type a command that goes on until Ctrl-C, and return what is seen up to what it is typed for."""
        with subprocess.Popen(
            self.command("make", verb),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            start_new_session=True,
        ) as following:
            assert following.stdout
            seen = ""
            for line in following.stdout:
                seen += line
                if GO_ON[verb] in line:
                    break
            # Not SIGINT, which is ignored by what a shell has started in the background.
            os.killpg(following.pid, signal.SIGTERM)
        assert GO_ON[verb] in seen, seen
        return seen

    def attach(self) -> str:
        """Attach to uwsgi's terminal, detach with Ctrl-C, and return what was seen."""
        ours, theirs = pty.openpty()
        attached = subprocess.Popen(
            self.command("make", "attach"), cwd=self.folder, stdin=theirs, stdout=theirs, stderr=theirs
        )
        try:
            # Before that, Ctrl-C would end the command instead of detaching.
            wait_until(
                lambda: not termios.tcgetattr(theirs)[LOCAL_MODES] & termios.ISIG, "the terminal is the container's"
            )
            os.write(ours, b"\x03")
            attached.wait(10)
            return os.read(ours, 65_536).decode()
        finally:
            attached.kill()
            attached.wait()
            os.close(ours)
            os.close(theirs)


# The order of a day: each verb finds what it needs.
DAY = """
help
up
status
status JSON=1
top
logs
ps
doctor
releases
manage CMD=check
shell
trace
reload
restart
restart S=nginx
scale N=2
scale N=1
deploy
rollback
bring-database FROM=copy.sqlite3 REPLACE=1
bring-media FROM=docs
backup
backups
restore FROM=latest
up-unix
up-tcp
up-direct
stop
dev
attach
adopt
up
down
clean CONFIRM=1
"""
# Those that go on until Ctrl-C, with a part of a line that each prints once it works
GO_ON = {"top": " requests/s", "logs": " | "}
# Of maintainers: they need the test tools, and what they do to the engine the others do as well.
LEFT_OUT = {"lint", "check", "test", "test-all", "prove", "bench", "sbom", "outdated", "update"}
# It needs overrides/tls.yaml, and only runs a command in a container, as `shell` does.
LEFT_OUT |= {"certificate"}
REFUSED = re.compile("EACCES|permission denied|not permitted|traceback", re.IGNORECASE)


def low_port() -> int:
    """Return a port that only root may bind, 80 if it is free; Docker binds it for its users."""
    for port in range(80, 1024):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port below 1024 is free")


@pytest.fixture(scope="module")
def user() -> Iterator[User]:
    """A user of this machine, only for these tests."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a user")
    engine = Path("/var/run/docker.sock")
    if not engine.exists() or engine.group() != "docker":
        pytest.skip("group docker may not use the engine of this machine")
    name = f"test-{CHECKOUT}"
    run("userdel", "--force", "--remove", name)
    done = run("useradd", "--create-home", "--user-group", "--groups", "docker", name)
    assert done.returncode == 0, done.stderr
    # Not in pytest's own folder, which is closed to other users.
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    made = User(folder, name)
    try:
        yield made
    finally:
        made.remove()
        shutil.rmtree(folder)
        run("userdel", "--force", "--remove", name)


def test_every_verb_is_typed_or_left_out_for_a_reason() -> None:
    listed = {
        line.split()[1] for line in run("make", "help", "ALL=1").stdout.splitlines() if line.startswith("  make ")
    }
    assert listed | {"help"} == {line.split()[0] for line in DAY.split("\n") if line} | LEFT_OUT


def test_what_root_has_made_is_one_sentence(user: User) -> None:
    """Root types the first command in a checkout that is to be the user's."""
    assert run("ops/run", "setup", cwd=user.folder, environment=user.environment).returncode == 0
    message = user.refused("up")
    assert "belongs to root, and your user may not use it. Type make as that user, or make the files yours" in message
    assert f'sudo chown -R "$(id -un)" {user.folder}' in message
    # Compose reads it for every verb, and would name .env as the file to fix.
    assert f"{user.folder}/project.env belongs to root" in user.refused("status")
    user.own()
    lock = user.folder / f".{user.project}.lock"
    lock.touch()
    assert f"{lock} belongs to root, and" in user.refused("up")
    assert f"{lock} belongs to root, and" in user.refused("stop")
    user.own()
    assert user.made("ps")


@pytest.mark.timeout(600)
def test_a_user_in_group_docker_types_every_verb(user: User) -> None:
    """At a port that only root may bind: Docker binds it for its users."""
    refused = {line: words for line in DAY.split("\n") if line and REFUSED.search(words := user.typed(line))}
    assert not refused
    # But for backups/, which the container's user writes
    strange = run("find", str(user.folder), "-name", "backups", "-prune", "-o", "!", "-user", user.name, "-print")
    assert strange.stdout == ""
