"""The first five minutes: the README's commands, in a fresh copy, with the sample project."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from ops.trace import about
from tests.support.checkout import Checkout
from tests.support.stack import run, wait_until

pytestmark = pytest.mark.needs_sample
TRANSPORTS = {"up-tcp": "tcp", "up-unix": "unix-socket"}
SECRET = "correct-horse"  # pragma: allowlist secret


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A copy whose `make up` has been typed once."""
    made = Checkout(tmp_path_factory.mktemp("newcomer"), "newcomer")
    try:
        made.first_words = made.made("up")  # type: ignore[attr-defined]
        yield made
    finally:
        made.remove()


def test_make_up_ends_with_the_address_and_what_to_type_next(checkout: Checkout) -> None:
    words = checkout.first_words  # type: ignore[attr-defined]
    assert f"Ready: http://127.0.0.1:{checkout.environment['HTTP_PORT']}/ over tcp, 2 workers" in words
    assert "make status" in words


def test_settings_and_secret_were_made(checkout: Checkout) -> None:
    secret = checkout.folder / "secrets" / "django_secret_key"
    assert (checkout.folder / ".env").read_text() == (checkout.folder / ".env.example").read_text()
    assert secret.parent.stat().st_mode & 0o777 == 0o700
    assert len(secret.read_text().strip()) >= 50
    assert run("git", "check-ignore", "secrets/django_secret_key", ".env").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["up-unix", "up-tcp"])
def test_home_page_and_its_twin_name_the_transport(checkout: Checkout, verb: str) -> None:
    checkout.made(verb)
    page = checkout.get()
    assert page.status_code == 200
    assert f'data-key="transport">{TRANSPORTS[verb]}<' in page.text
    assert checkout.get("/api/request").json()["transport"] == TRANSPORTS[verb]
    for address in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text):
        answer = checkout.get(address)
        assert (answer.status_code, "immutable" in answer.headers["Cache-Control"]) == (200, True), address
    # Workers and memory are shown only with DJANGO_STACK_PAGE=1: test_browser.py.
    assert 'id="stack"' not in page.text
    assert checkout.get("/api/stack").status_code == 404


def test_data_survives_a_change_of_transport(checkout: Checkout) -> None:
    checkout.made("up-tcp")
    made = "createsuperuser --noinput --username ada --email ada@example.com"
    checkout.made("manage", f"CMD={made}")
    assert checkout.get("/api/request").json()["transport"] == "tcp"
    checkout.made("up-unix")
    assert checkout.get("/api/request").json()["transport"] == "unix-socket"
    refused = checkout.make("manage", f"CMD={made}")
    assert "already taken" in refused.stdout + refused.stderr


def created(checkout: Checkout, name: str) -> None:
    """Create somebody who may log in to the admin."""
    code = f"from django.contrib.auth.models import User\nUser.objects.create_superuser('{name}', '', '{SECRET}')"
    shell = ("python", "manage.py", "shell", "-v", "0", "-c", code)
    done = run("docker", "exec", checkout.containers("uwsgi")[0], *shell)
    assert done.returncode == 0, done.stderr


def login_form(browser: requests.Session, address: str, name: str) -> dict[str, str]:
    """Fetch the admin's form and return it filled in."""
    token = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', browser.get(address, timeout=20).text)[0]
    return {"csrfmiddlewaretoken": token, "username": name, "password": SECRET}


def test_admin_can_be_logged_in_to(checkout: Checkout) -> None:
    created(checkout, "eve")
    address = f"http://localhost:{checkout.environment['HTTP_PORT']}/admin/login/?next=/admin/"
    with requests.Session() as browser:
        sent = login_form(browser, address, "eve")
        answer = browser.post(address, sent, headers={"Origin": address.split("/admin", maxsplit=1)[0]}, timeout=20)
    assert "Site administration" in answer.text
    assert answer.url.endswith("/admin/")


@pytest.mark.slow
def test_a_locked_database_is_a_503_and_pages_go_on(checkout: Checkout) -> None:
    """F10: a login writes, waits as long as the settings say (10 s), and says that it may be repeated."""
    container = checkout.containers("uwsgi")[0]
    hold = (
        "import sqlite3, time\n"
        'held = sqlite3.connect("/data/db.sqlite3", isolation_level=None)\n'
        'held.execute("BEGIN EXCLUSIVE")\n'
        'print("locked", flush=True)\n'
        "time.sleep(24)"
    )
    created(checkout, "ida")
    address = f"http://localhost:{checkout.environment['HTTP_PORT']}/admin/login/"
    with requests.Session() as browser:
        sent = login_form(browser, address, "ida")
        command = ["docker", "exec", container, "python", "-c", hold]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as locked:
            assert locked.stdout is not None
            assert locked.stdout.readline() == "locked\n"
            with ThreadPoolExecutor(1) as other:
                waiting = other.submit(browser.post, address, sent, timeout=30)
                assert checkout.get("/admin/login/").status_code == 200
                refused = waiting.result()
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5"), refused.text
    assert 9 < refused.elapsed.total_seconds() < 24
    assert "Traceback" not in refused.text
    assert checkout.get("/readyz").status_code == 200


@pytest.mark.slow
def test_sample_project_passes_djangos_deployment_check(checkout: Checkout) -> None:
    assert "no issues" in checkout.made("manage", "CMD=check --deploy --fail-level WARNING")


def test_health_and_readiness(checkout: Checkout) -> None:
    assert checkout.get("/healthz").text == "alive\n"
    assert checkout.get("/readyz").text == "ready\n"


def test_status_is_a_table_for_people_and_a_document_for_programs(checkout: Checkout) -> None:
    checkout.made("up-tcp")
    table = checkout.made("status")
    assert re.search(r"^transport  tcp$", table, re.MULTILINE)
    assert re.search(r"^port       0\.0\.0\.0:8080, 0 of 4096 waiting$", table, re.MULTILINE)
    assert re.search(r"^queue      0\.0\.0\.0:20001, 0 of 1024 waiting$", table, re.MULTILINE)
    assert re.search(r"^uWSGI      2\.0\.31$", table, re.MULTILINE)
    rows = re.findall(r"^\S+-uwsgi-\d+ +healthy +(\d+) +\w+ +\d+ +\d+ +(\d+) MB +20\d\d-", table, re.MULTILINE)
    assert [worker for worker, _ in rows] == ["1", "2"]
    assert all(int(megabytes) > 0 for _, megabytes in rows)
    document = json.loads(checkout.made("status", "JSON=1"))
    assert document["transport"] == "tcp"
    assert len(document["containers"][0]["stats"]["workers"]) == 2


@pytest.mark.slow
def test_one_request_can_be_followed_through_all_logs(checkout: Checkout) -> None:
    checkout.made("up")
    answer = checkout.get("/nowhere")
    wanted = answer.headers["X-Request-ID"]
    lines = wait_until(
        lambda: found if len(found := checkout.make("trace", f"ID={wanted}").stdout.splitlines()) >= 2 else None,
        "its lines",
    )
    by_service = {
        service: line for line in lines for service in ("nginx", "uwsgi") if re.search(rf"-{service}-\d+ ", line)
    }
    assert f"WARNING django.request {wanted}: Not Found: /nowhere" in by_service["uwsgi"]
    assert '"uri":"/nowhere","status":404' in by_service["nginx"]
    assert [line[:23] for line in lines] == sorted(line[:23] for line in lines)
    assert checkout.get("/healthz").headers["X-Request-ID"] not in "".join(lines)
    assert "is not a request id" in checkout.refused("trace", "ID=x")
    assert f"No log contains {'0' * 32}" in checkout.refused("trace", f"ID={'0' * 32}")


def test_a_traceback_belongs_to_the_line_before_it() -> None:
    lines = [
        "ERROR django.request other-id-1: a",
        "Traceback (most recent call last):",
        '  File "x"',
        "KeyError: 'of another'",
        "ERROR django.request wanted-id: b",
        "Traceback (most recent call last):",
        '  File "x"',
        "KeyError: 'mine'",
        "",
        "During handling of the above exception, another exception occurred:",
        "",
        "Traceback (most recent call last):",
        '  File "y"',
        "ValueError: 'mine, too'",
        "INFO django.request other-id-2: c",
        "Traceback (most recent call last):",
    ]
    assert [text for _, text in about("wanted-id", [("", line) for line in lines])] == lines[4:14]


@pytest.mark.slow
def test_reload_brings_fresh_workers(checkout: Checkout) -> None:
    def spawned() -> int:
        document = json.loads(checkout.made("status", "JSON=1"))
        return min(int(worker["last_spawn"]) for worker in document["containers"][0]["stats"]["workers"])

    before = spawned()
    time.sleep(1.1)
    assert "reloaded in" in checkout.made("reload")
    assert spawned() > before
    assert checkout.get().status_code == 200


def test_stop_and_up_again(checkout: Checkout) -> None:
    checkout.made("stop")
    assert "No uwsgi container is running. Start the stack: make up" in checkout.refused("status")
    checkout.made("up")
    assert checkout.get().status_code == 200


def test_a_second_up_restarts_nothing(checkout: Checkout) -> None:
    checkout.made("up")
    before = json.loads(checkout.made("status", "JSON=1"))["containers"][0]["started"]
    checkout.made("up")
    assert json.loads(checkout.made("status", "JSON=1"))["containers"][0]["started"] == before


@pytest.mark.slow
def test_set_up_of_a_complete_machine_is_silent(checkout: Checkout) -> None:
    done = run("ops/run", "setup", cwd=checkout.folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_uwsgi_answers_http_by_itself(checkout: Checkout) -> None:
    words = checkout.made("up-direct")
    address = f"http://127.0.0.1:{checkout.environment['DIRECT_PORT']}/"
    assert f"Ready: {address} by uWSGI alone" in words
    assert requests.get(f"{address}api/request", timeout=10).json()["transport"].startswith("none")
    checkout.made("stop")
    wait_until(lambda: not checkout.make("ps").stdout.count("Up "), "everything is stopped")
    checkout.made("up")
    assert requests.get(f"{address}healthz", timeout=10).text == "alive\n"


@pytest.mark.slow
def test_log_goes_to_a_file_where_that_is_asked_for(checkout: Checkout) -> None:
    checkout.set("COMPOSE_FILE", "compose.yaml:compose.tcp.yaml:overrides/log-file.yaml")
    checkout.made("up-unix")
    assert checkout.get("/api/request").json()["transport"] == "unix-socket"
    name = checkout.containers("uwsgi")[0]
    log = run("docker", "exec", name, "cat", "/var/log/uwsgi/uwsgi.log").stdout
    assert "spawned uWSGI worker 2" in log
    assert "spawned uWSGI worker" not in run("docker", "logs", name).stdout
    run(
        "docker",
        "exec",
        name,
        "sh",
        "-c",
        "mv /var/log/uwsgi/uwsgi.log /var/log/uwsgi/uwsgi.log.1 && echo l >/run/uwsgi/fifo",
    )
    wait_until(lambda: run("docker", "exec", name, "ls", "/var/log/uwsgi/uwsgi.log").returncode == 0, "a new file")
    checkout.set("COMPOSE_FILE", "compose.yaml:compose.tcp.yaml")


def test_down_keeps_the_data_and_clean_asks_first(checkout: Checkout) -> None:
    checkout.made("down")
    assert checkout.containers() == []
    assert "make clean CONFIRM=1" in checkout.refused("clean")
    volumes = run("docker", "volume", "ls", "--quiet").stdout
    assert f"{checkout.project}_data" in volumes
    checkout.made("clean", "CONFIRM=1")
    mine = ("ls", "--quiet", "--filter", f"label=com.docker.compose.project={checkout.project}")
    assert {kind: run("docker", kind, *mine).stdout for kind in ("network", "volume")} == {"network": "", "volume": ""}


@pytest.mark.slow
def test_top_follows_the_workers(checkout: Checkout) -> None:
    checkout.made("up")
    ended = threading.Event()

    def visit() -> None:
        while not ended.is_set():
            checkout.get("/api/request")
            time.sleep(0.05)

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        command = ("ops/run", "top", "--times", "2")
        done = run(*command, cwd=checkout.folder, environment=checkout.environment)
    finally:
        ended.set()
        visitor.join()
    rates = [int(found) for found in re.findall(r"(\d+) requests/s", done.stdout)]
    assert len(rates) == 2, done.stderr
    assert min(rates) > 1
    assert done.stdout.count("healthy  1") == 2
