"""One stack for each transport, shared by the tests that only look; a fresh one for those that break it."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TextIO

import pytest

from tests.support import runs
from tests.support.stack import CHECKOUT, TRANSPORTS, Stack

# The clean-up helper of testcontainers is an image no registry may be there to give; we clean up ourselves.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
os.environ["TEST_IMAGES"] = f"test-{CHECKOUT}"
# What your shell says of your own stack must not reach the one under test; nor what `make test` says.
for name in (
    "MAKEFLAGS",
    "MAKELEVEL",
    "COMPOSE_FILE",
    "COMPOSE_PROJECT_NAME",
    *(n for n in os.environ if n.startswith(("DJANGO_", "NGINX_", "UWSGI_", "TRUSTED_", "HTTP_P", "HTTP_A"))),
):
    os.environ.pop(name, None)

RUN = pytest.StashKey[TextIO]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --transport."""
    parser.addoption("--transport", choices=TRANSPORTS, help="only this transport")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Begin the run: once, in the process that starts the parallel ones."""
    if hasattr(session.config, "workerinput") or session.config.option.collectonly:
        return
    try:
        session.config.stash[RUN] = runs.begin()
    except RuntimeError as alive:
        pytest.exit(str(alive), returncode=4)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that takes a stack once for each transport."""
    if "transport" in metafunc.fixturenames:
        only = metafunc.config.getoption("--transport")
        # The group keeps the tests of one transport, and so its stack, in one of the parallel processes.
        cases = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ([only] if only else TRANSPORTS)]
        metafunc.parametrize("transport", cases, scope="session", indirect=True)


@pytest.fixture(scope="session")
def transport(request: pytest.FixtureRequest) -> str:
    """The transport under test."""
    return str(request.param)


@pytest.fixture(scope="session")
def shared_stack(transport: str) -> Iterator[Stack]:
    """The one stack of this transport; its images serve the disposable ones, too."""
    stack = Stack(transport, "shared")
    try:
        # One after the other: two builds of the same at once make two images of one name, and Compose
        # would replace containers later because theirs has lost it.
        with (Path(tempfile.gettempdir()) / f"test-{CHECKOUT}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            stack("build")
        yield stack.start()
    finally:
        stack.stop()


@pytest.fixture
def stack(shared_stack: Stack) -> Stack:
    """A running stack with the probe in it; leave it as it was."""
    return shared_stack


@pytest.fixture
def disposable_stack(shared_stack: Stack, transport: str) -> Iterator[Stack]:
    """A running stack of one's own, to break."""
    stack = Stack(transport, "own")
    try:
        yield stack.start()
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def changed_stack(shared_stack: Stack, transport: str) -> Iterator[Callable[[str], Stack]]:
    """Starts, once for each test file, a stack of one's own with tests/overrides/NAME.yaml on top."""
    started: dict[str, Stack] = {}

    def start(name: str) -> Stack:
        if name not in started:
            started[name] = Stack(transport, name, [f"tests/overrides/{name}.yaml"]).start()
        return started[name]

    try:
        yield start
    finally:
        for stack in started.values():
            stack.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach logs and nginx's effective configuration to a failure."""
    report = yield
    stacks = [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Stack)]
    if report.failed and report.when == "call":
        for stack in dict.fromkeys(stacks):
            report.sections.append((f"stack {stack.project}", stack.evidence()))
    return report
