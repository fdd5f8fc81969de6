"""pidfile, stats and reload, inside the container, as the guide that started this project has them."""

import json
import re

import pytest

from tests.support.stack import Stack, wait_until

PIDFILE = "/run/uwsgi/uwsgi.pid"


def test_stats_can_be_read(stack: Stack) -> None:
    result = stack.exec("uwsgi", "uwsgi", "--connect-and-read", "/run/uwsgi/stats.sock")
    document, _ = json.JSONDecoder().raw_decode(result)
    assert document["version"] == "2.0.31"
    assert len(document["workers"]) == 2


def test_pidfile_names_the_master(stack: Stack) -> None:
    assert stack.exec("uwsgi", "cat", PIDFILE).strip() == "1"


def test_master_fifo_takes_commands(stack: Stack) -> None:
    stack.exec("uwsgi", "sh", "-c", "echo s >/run/uwsgi/fifo")
    wait_until(lambda: "worker 1 app 0" in stack.log("uwsgi"), "the workers' state in the log")


def test_uwsgi_socket_tells_the_length_of_its_queue(stack: Stack) -> None:
    result = json.loads(stack.exec("uwsgi-socket", "healthcheck.py"))
    assert result["address"] == ("0.0.0.0:20001" if stack.transport == "tcp" else "/run/wire/uwsgi.sock")
    assert (result["waiting"], result["most"]) == (0, 1024)


@pytest.mark.slow
def test_queue_is_seen_filling(disposable_stack: Stack) -> None:
    disposable_stack("stop", "uwsgi")
    for _ in range(5):
        try:
            disposable_stack.get("/echo", timeout=0.2)
        except OSError:
            continue
    assert json.loads(disposable_stack.exec("uwsgi-socket", "healthcheck.py"))["waiting"] >= 5


@pytest.mark.slow
def test_stop_ends_the_process_and_the_policy_brings_it_back(disposable_stack: Stack) -> None:
    before = disposable_stack.container("uwsgi")["State"]["StartedAt"]
    disposable_stack.exec("uwsgi", "uwsgi", "--stop", PIDFILE)
    wait_until(lambda: disposable_stack.container("uwsgi")["State"]["StartedAt"] != before, "a fresh process", 20)
    wait_until(disposable_stack.serves, "served again", 30)


def test_logs_hold_slow_and_failed_requests_only(stack: Stack) -> None:
    stack.get("/echo?marker=quick")
    stack.get("/status/503?marker=failed")
    stack.get("/sleep/5200?marker=slow")
    wait_until(lambda: "marker=slow" in stack.log("uwsgi"), "the slow request in the log")
    log = stack.log("uwsgi")
    assert re.search(
        r"^GET /status/503\?marker=failed 503 in \d+ ms by worker \d, request [0-9a-f]{32}$", log, re.MULTILINE
    )
    assert "marker=quick" not in log


def test_static_files_that_are_there_are_not_logged_and_missing_ones_are(stack: Stack) -> None:
    served = stack.get("/static/probe/style.css").headers["X-Request-ID"]
    missing = stack.get("/static/probe/missing.css").headers["X-Request-ID"]
    log = stack.complete_log("nginx")
    assert missing in log
    assert served not in log


def test_access_log_is_json_with_request_id_and_upstream_times(stack: Stack) -> None:
    answer = stack.get('/echo?"forged\\n{}')
    wanted = answer.headers["X-Request-ID"]
    lines = wait_until(
        lambda: [line for line in stack.log("nginx").splitlines() if wanted in line], "its line in the log"
    )
    entry = json.loads(lines[0])
    assert entry["status"] == 200
    assert float(entry["upstream_header"]) >= 0
    assert entry["upstream_status"] == "200"
    assert entry["client"] == answer.json()["meta"]["REMOTE_ADDR"]
