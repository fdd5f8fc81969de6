"""`make dev`: a save takes effect, errors are shown, the debugger can be reached, files belong to the developer."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from tests.support.checkout import Checkout
from tests.support.stack import TRANSPORTS, run, wait_until
from tools.bench.cgroup import Cpu

pytestmark = pytest.mark.needs_sample
# Not the user of this process, so that files of the developer can be told from files of the container's user.
DEVELOPER = 1234
TESTS = """
from django.test import TestCase

class Home(TestCase):
    def test_it_answers(self):
        assert self.client.get("/api/request").status_code == 200
"""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("tcp", marks=[pytest.mark.xdist_group("develop-tcp"), pytest.mark.slow]),
        pytest.param("unix-socket", marks=pytest.mark.xdist_group("develop-unix-socket")),
    ],
)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A copy of this repository under `make dev`, its app/ owned by the developer."""
    made = Checkout(tmp_path_factory.mktemp("develop"), f"develop-{request.param}")
    made.set("COMPOSE_FILE", f"compose.yaml:{TRANSPORTS[request.param]}")
    for path in (made.folder / "app", *(made.folder / "app").rglob("*")):
        os.chown(path, DEVELOPER, DEVELOPER)
    try:
        made.made("dev")
        yield made
    finally:
        made.remove()


def uwsgi(site: Checkout) -> str:
    """Return the name of the uwsgi container."""
    return site.containers("uwsgi")[0]


def answers_within(site: Checkout, path: str, text: str, seconds: float) -> None:
    """Fail unless a page says this within so many seconds. A request waits while uWSGI restarts."""
    wait_until(lambda: text in site.get(path).text, f"{path} says {text}", seconds)


def with_word(views: str, word: str) -> str:
    """Return the source of the views with one that says a word more."""
    before, after = views.rsplit("return JsonResponse(", 1)
    return f"{before}return JsonResponse({{'said': '{word}'}} | {after}"


def test_the_developer_has_an_account_and_a_home(site: Checkout) -> None:
    """getpwuid() fails for a number without an account, and with it libpq and getpass."""
    command = "import getpass, os; print(getpass.getuser(), os.getuid(), os.path.expanduser('~'))"
    done = run("docker", "exec", "--env", "USER=", uwsgi(site), "python", "-c", command)
    assert done.stdout.split() == ["developer", str(DEVELOPER), "/tmp"], done.stderr


def test_saved_python_takes_effect(site: Checkout) -> None:
    views = site.folder / "app/home/views.py"
    before = views.read_text()
    took = []
    for word in ("first", "second", "third"):
        for _ in range(8):  # Django imports views at the first request: then no worker has the new code by chance
            site.get("/api/request")
        views.write_text(with_word(before, word))
        began = time.monotonic()
        answers_within(site, "/api/request", word, 10)
        took.append(time.monotonic() - began)
    print(f"answered after {', '.join(f'{seconds:.1f} s' for seconds in took)}")
    views.write_text(before)
    wait_until(lambda: "said" not in site.get("/api/request").text, "it is as before", 5)


@pytest.mark.slow
def test_a_saved_template_answers_at_once(site: Checkout) -> None:
    template = site.folder / "app/home/templates/home/index.html"
    assert "It runs." in site.get("/").text
    template.write_text(template.read_text().replace("It runs.", "It still runs."))
    # Each worker keeps templates of its own.
    assert ["It still runs." in site.get("/").text for _ in range(10)] == [True] * 10


def test_a_saved_static_file_answers_at_once(site: Checkout) -> None:
    style = site.folder / "app/home/static/home/style.css"
    assert "/static/home/style.css" in site.get("/").text
    style.write_text(f"{style.read_text()}\n/* saved */\n")
    answer = site.get("/static/home/style.css")
    assert answer.text.endswith("/* saved */\n")
    assert answer.headers["Cache-Control"] == "no-cache"
    assert site.get("/static/admin/css/base.css").status_code == 200


def test_code_that_does_not_import_is_shown_and_can_be_fixed(site: Checkout) -> None:
    for name in ("urls.py", "wsgi.py"):
        file = site.folder / "app/config" / name
        good = file.read_text()
        file.write_text(f"{good}\nimport nothing_of_that_name\n")
        try:
            answers_within(site, "/", "No module named 'nothing_of_that_name'", 3)
            assert site.get("/").status_code == 500
        finally:
            file.write_text(good)
        wait_until(lambda: site.get("/").status_code == 200, "it answers again", 3)


def test_an_error_is_djangos_debug_page(site: Checkout) -> None:
    assert "Change that to <code>False</code>" in site.get("/none").text


@pytest.mark.slow
def test_breakpoint_is_reached_through_make_attach(site: Checkout) -> None:
    views = site.folder / "app/home/views.py"
    before = views.read_text()
    stop = "seen = 41 + 1; request.GET and breakpoint(); return JsonResponse("
    views.write_text(with_word(before, "ready").replace("return JsonResponse(", stop))
    answers: list[requests.Response] = []
    ours, theirs = pty.openpty()
    attached = subprocess.Popen(
        ["make", "attach"], cwd=site.folder, env={**os.environ, **site.environment}, stdin=theirs, stdout=theirs
    )
    try:
        os.close(theirs)
        answers_within(site, "/api/request", "ready", 10)
        time.sleep(1)  # the workers before have left by now
        asking = threading.Thread(target=lambda: answers.append(site.get("/api/request?stop")))
        asking.start()
        read_until(ours, b"(Pdb) ")
        os.write(ours, b"print('seen', seen)\n")
        read_until(ours, b"seen 42")
        os.write(ours, b"continue\n")
        asking.join(10)
        assert [one.status_code for one in answers] == [200]
        os.write(ours, b"\x03")
        assert attached.wait(10) is not None
    finally:
        attached.kill()
        attached.wait()
        os.close(ours)
        views.write_text(before)
    # Ctrl-C has left the terminal, and uWSGI alone.
    wait_until(lambda: site.get("/api/request").status_code == 200, "it answers", 5)


def read_until(terminal: int, wanted: bytes, seconds: float = 20) -> bytes:
    """Return what a terminal prints up to the wanted words."""
    os.set_blocking(terminal, False)
    deadline, printed = time.monotonic() + seconds, b""
    while wanted not in printed:
        assert time.monotonic() < deadline, printed.decode()
        try:
            printed += os.read(terminal, 4096)
        except BlockingIOError:
            time.sleep(0.05)
    return printed


@pytest.mark.slow
def test_files_belong_to_the_developer(site: Checkout) -> None:
    site.made("manage", "CMD=startapp shop")
    made = site.folder / "app/shop/models.py"
    assert (made.stat().st_uid, made.stat().st_gid) == (DEVELOPER, DEVELOPER)
    database = site.folder / "dev-data/db.sqlite3"
    assert database.stat().st_uid == DEVELOPER
    shutil.rmtree(site.folder / "app/shop")


@pytest.mark.slow
def test_the_projects_tests_run(site: Checkout) -> None:
    file = site.folder / "app/home/tests.py"
    file.write_text(TESTS)
    done = site.make("manage", "CMD=test")
    assert "Ran 1 test" in done.stdout + done.stderr
    assert done.returncode == 0
    file.unlink()


@pytest.mark.slow
def test_it_rests_when_nothing_is_saved(site: Checkout) -> None:
    """Less than 1 % of one core, health checks included, over 15 s."""
    wait_until(lambda: site.get("/").status_code == 200, "it answers", 10)
    time.sleep(2)  # what the last test has saved is taken in
    cpu, seconds = Cpu([uwsgi(site)]), 15.0
    before = cpu.seconds()
    time.sleep(seconds)
    used = cpu.seconds() - before
    print(f"{used / seconds:.2%} of one core")
    assert used / seconds < 0.01


@pytest.mark.slow
def test_the_doctor_has_nothing_to_say(site: Checkout) -> None:
    assert "nothing wrong" in site.made("doctor")


@pytest.mark.slow
def test_a_release_is_refused(site: Checkout) -> None:
    assert "make up" in site.refused("deploy")
    assert "has no releases" in site.refused("scale", "N=2")


def test_make_up_goes_back_to_production(site: Checkout) -> None:
    """Last, since it ends the development stack: DEBUG off, files hashed, and its own database."""
    (site.folder / "dev-data/witness").write_text("of the development")
    site.made("up")
    assert "/static/home/style." in site.get("/").text
    assert "/static/home/style.css" not in site.get("/").text
    assert "DEBUG" not in site.get("/none").text
    assert run("docker", "exec", uwsgi(site), "ls", "/data/witness").returncode != 0
    assert (site.folder / "dev-data/witness").exists()
    assert "development" not in site.made("releases")
