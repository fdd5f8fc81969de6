"""One stack per transport, shared by the tests that only look, and one per test file for the tests that break it.

Tests run in several processes, file by file: most of a test's time is waiting. A process has one shared stack at
a time, so it runs the files of one transport before those of the other.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TextIO

import pytest

from tests.support import runs
from tests.support.site import Site
from tests.support.stack import CHECKOUT, SAMPLE, TLS, TRANSPORTS, Stack

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
# The files that take longest begin first, or they would run alone at the end. pytest-xdist gives each process two
# files at the start: after the longest come those that take no time.
ORDER = (
    ("unix-socket-test_deploy", "test_projects", "unix-socket-test_killed_deploys", "unix-socket-test_broken_releases"),
    ("test_adopt", "test_settings", "test_forking", "test_runs"),
    (
        "bare-machine",
        "unix-socket-test_backup",
        "test_newcomer",
        "test_browser",
        "test_bench",
        "test_bad_input",
        "develop-tcp",
    ),
    ("develop-unix-socket", "test_machines"),
)


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
    """Run every test that takes a stack once for each transport, or once where the marker says that one will do."""
    if "transport" in metafunc.fixturenames:
        only = metafunc.config.getoption("--transport")
        one_will_do = metafunc.definition.get_closest_marker("one_transport")
        names = [only] if only else ["unix-socket"] if one_will_do else list(TRANSPORTS)
        metafunc.parametrize("transport", names, scope="session", indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of one file and transport in one process, and begin with those that take longest."""
    for item in items:
        if item.get_closest_marker("needs_sample") and not SAMPLE:
            item.add_marker(pytest.mark.skip("app/ is a project of your own"))
        if item.get_closest_marker("slow_on_tcp") and transport_of(item) == "tcp-":
            item.add_marker("slow")
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(f"{transport_of(item)}{item.path.stem}"))
    items.sort(key=lambda item: order(group_of(item)))


def transport_of(item: pytest.Item) -> str:
    """Return the transport that a test runs on and a dash, nothing if it takes no stack."""
    parameters = getattr(item, "callspec", None)
    return f"{parameters.params['transport']}-" if parameters and "transport" in parameters.params else ""


def group_of(item: pytest.Item) -> str:
    """Return the group whose tests run in one process, one after the other."""
    marker = item.get_closest_marker("xdist_group")
    assert marker
    return str(marker.args[0])


def order(group: str) -> tuple[int, str]:
    """Return the place of a group."""
    return next((place for place, groups in enumerate(ORDER) if group in groups), len(ORDER)), group


@pytest.fixture(scope="session")
def transport(request: pytest.FixtureRequest) -> str:
    """The transport under test."""
    return str(request.param)


@pytest.fixture(scope="session")
def images(testrun_uid: str) -> None:
    """The images of all stacks, built once in a run.

    By two builds at once there would be two images of one name, and Compose would replace containers later because
    theirs has lost it.
    """
    folder = Path(tempfile.gettempdir())
    with (folder / f"test-{CHECKOUT}.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        if lock.read() != testrun_uid:
            Stack("tcp", "images", TLS)("build")
            lock.truncate(0)
            lock.write(testrun_uid)


@pytest.fixture(scope="session")
def shared_stack(images: None, transport: str, worker_id: str) -> Iterator[Stack]:
    """The one stack of this transport in this process."""
    stack = Stack(transport, f"shared-{worker_id}")
    try:
        yield stack.start()
    finally:
        stack.stop()


@pytest.fixture
def stack(shared_stack: Stack) -> Stack:
    """A running stack with the probe in it; leave it as it was."""
    return shared_stack


@pytest.fixture(scope="module")
def own_stack(images: None, transport: str, worker_id: str) -> Iterator[Stack]:
    """A stack for the tests of one file."""
    stack = Stack(transport, f"own-{worker_id}")
    try:
        yield stack.start()
    finally:
        stack.stop()


@pytest.fixture
def disposable_stack(own_stack: Stack) -> Stack:
    """A running stack to break: what the test before has left of it is repaired first."""
    return own_stack.healed()


@pytest.fixture(scope="module")
def tls_stack(images: None, transport: str, worker_id: str) -> Iterator[Stack]:
    """A stack that serves over https, for the tests of one file."""
    stack = Stack(transport, f"tls-{worker_id}", TLS)
    try:
        yield stack.start()
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def changed_stack(images: None, transport: str, worker_id: str) -> Iterator[Callable[[str], Stack]]:
    """Starts, once for each test file, a stack with tests/overrides/NAME.yaml added."""
    started: dict[str, Stack] = {}

    def start(name: str) -> Stack:
        if name not in started:
            started[name] = Stack(transport, f"{name}-{worker_id}", [f"tests/overrides/{name}.yaml"]).start()
        return started[name]

    try:
        yield start
    finally:
        for stack in started.values():
            stack.stop()


@pytest.fixture(scope="module")
def site(transport: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A copy of this repository with the probe in app/, up and running: one for each test file."""
    role = request.module.__name__.rpartition("test_")[2].replace("_", "-")
    made = Site(tmp_path_factory.mktemp(role), transport, role)
    try:
        made.up()
        yield made
    finally:
        made.remove()


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
