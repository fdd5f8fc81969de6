"""Restarting, killing or replacing any container leaves the stack serving."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.support.stack import CHECKOUT, ROOT, Stack, run, wait_until


@contextmanager
def clients(address: str, count: int = 4) -> Iterator[list[str]]:
    """Send GET and POST on keep-alive connections, without retries; the list holds every failure."""
    failures: list[str] = []
    sent = [0] * count
    stop = threading.Event()

    def client(number: int) -> None:
        with requests.Session() as session:
            while not stop.is_set():
                body = f"{number} {sent[number]}".encode() * 50
                try:
                    answer = (
                        session.post(address, body, timeout=20)
                        if sent[number] % 2
                        else session.get(address, timeout=20)
                    )
                    if answer.status_code != 200:
                        failures.append(f"{answer.status_code} {answer.text[:100]}")
                except requests.RequestException as problem:
                    failures.append(repr(problem))
                sent[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield failures
        # Afterwards, too, and enough of them to prove anything
        enough = sum(sent) + 100
        wait_until(lambda: sum(sent) > enough, "a hundred more requests", 30)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


@pytest.mark.one_transport
def test_a_stop_while_the_project_is_imported_is_obeyed(stack: Stack, tmp_path: Path) -> None:
    """Otherwise the signal is lost, and the container is killed later, in the middle of requests."""
    slow = tmp_path / "stack_application.py"
    slow.write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    slow.chmod(0o644)
    name = f"{stack.project}-importing"
    options = ("--network", "none", "--tmpfs", "/run/uwsgi:uid=10001", "--env", "UWSGI_HARAKIRI=30")
    mount = ("--volume", f"{slow}:/usr/local/lib/uwsgi/project/stack_application.py:ro")
    image, ini = stack.container("uwsgi")["Config"]["Image"], "/etc/uwsgi/uwsgi.ini"
    run("docker", "run", "--detach", "--name", name, *options, *mount, image, "uwsgi", "--ini", ini)
    try:
        wait_until(lambda: "importing" in run("docker", "logs", name).stderr, "the import", 30)
        run("docker", "stop", "--time", "20", name)
        # uWSGI's own; 137: killed
        assert run("docker", "inspect", "--format", "{{.State.ExitCode}}", name).stdout.strip() == "30"
    finally:
        run("docker", "rm", "--force", name)


@pytest.mark.slow
@pytest.mark.parametrize("service", ["nginx-socket", "nginx", "uwsgi-socket", "uwsgi"])
def test_serves_after_a_restart(disposable_stack: Stack, service: str) -> None:
    disposable_stack("restart", service)
    wait_until(disposable_stack.serves, "served again", 30)


@pytest.mark.slow
@pytest.mark.parametrize("service", ["nginx-socket", "nginx", "uwsgi-socket", "uwsgi"])
def test_serves_after_a_kill(disposable_stack: Stack, service: str) -> None:
    # From inside, as a crash: `docker kill` counts as the operator's wish and is not restarted.
    before = disposable_stack.container(service)["State"]["StartedAt"]
    process = str(disposable_stack.container(service)["State"]["Pid"])
    assert run("kill", "-KILL", process).returncode == 0
    wait_until(lambda: disposable_stack.container(service)["State"]["StartedAt"] != before, "a restart", 20)
    wait_until(disposable_stack.serves, "served again", 30)


@pytest.mark.slow_on_tcp
def test_no_request_is_lost_while_uwsgi_restarts(disposable_stack: Stack) -> None:
    with clients(disposable_stack.url("/echo")) as failures:
        disposable_stack("restart", "uwsgi")
        wait_until(disposable_stack.serves, "served again", 30)
    assert failures == []


def test_no_request_is_lost_by_a_reload(disposable_stack: Stack) -> None:
    with clients(disposable_stack.url("/echo")) as failures:
        before = disposable_stack.container("uwsgi")["State"]["StartedAt"]
        disposable_stack.exec("uwsgi", "uwsgi", "--reload", "/run/uwsgi/uwsgi.pid")
        wait_until(lambda: disposable_stack.container("uwsgi")["State"]["StartedAt"] != before, "a restart", 20)
        wait_until(disposable_stack.serves, "served again", 30)
    assert failures == []


@pytest.mark.slow
def test_no_request_is_lost_by_a_new_version_of_the_code(
    transport: str, worker_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compose writes the project's name into an image that it builds: these must not take the names of the others'.
    image = f"test-{CHECKOUT}-{transport}-next"
    monkeypatch.setenv("TEST_IMAGES", image)
    stack = Stack(transport, f"next-{worker_id}")
    try:
        code_changes(stack, image, tmp_path)
    finally:
        stack("down", "--volumes", "--rmi", "local")
        run("docker", "image", "rm", "--force", image, *(f"{image}-{name}" for name in ("nginx", "sockets", "uwsgi")))


def code_changes(stack: Stack, image: str, tmp_path: Path) -> None:
    """Start the stack, bring a new version of the probe with `docker compose up`, and count what is lost."""
    app = shutil.copytree(ROOT / "tests/probe", tmp_path / "app")
    views = app / "probe/views.py"
    views.write_text(views.read_text().replace('"slept"', '"slept in the next version"'))
    override = tmp_path / "next.yaml"
    changed = {"image": image, "build": {"additional_contexts": {"app": str(app)}}}
    override.write_text(json.dumps({"services": {"uwsgi": changed, "release": {"image": image}}}))
    stack("up", "--build", "--detach", "--wait")
    untouched = {
        service: stack.container(service)["State"]["StartedAt"] for service in ("nginx-socket", "nginx", "uwsgi-socket")
    }
    with clients(stack.url("/echo")) as failures:
        stack("--file", str(override), "up", "--build", "--detach", "--wait")
        assert stack.get("/sleep/1").text == "slept in the next version"
    assert failures == []
    assert {service: stack.container(service)["State"]["StartedAt"] for service in untouched} == untouched


@pytest.mark.slow_on_tcp
def test_a_request_in_flight_is_finished_by_a_stop(disposable_stack: Stack) -> None:
    answers: list[requests.Response] = []
    slow = threading.Thread(target=lambda: answers.append(disposable_stack.get("/sleep/3000")))
    slow.start()
    time.sleep(1)
    disposable_stack("stop", "uwsgi")
    slow.join(20)
    assert [(answer.status_code, answer.text) for answer in answers] == [(200, "slept")]
    assert disposable_stack.container("uwsgi")["State"]["ExitCode"] == 0


@pytest.mark.slow
def test_two_replicas_share_the_requests(disposable_stack: Stack) -> None:
    disposable_stack("up", "--detach", "--no-recreate", "--scale", "uwsgi=2", "--wait")
    seen = {disposable_stack.get("/echo").json()["container"] for _ in range(60)}
    assert len(seen) == 2
