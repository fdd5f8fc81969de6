"""While the app is away nginx runs on and says so: page, status and Retry-After, HTML or JSON."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.stack import Stack, wait_until

JSON = {"Accept": "application/json"}


def test_unknown_host_gets_no_answer(stack: Stack) -> None:
    for host in (b"Host: evil.test\r\n", b"Host: localhost.evil.test\r\n", b"Host: 10.1.2.3\r\n"):
        assert stack.raw(b"GET / HTTP/1.1\r\n" + host + b"\r\n") == b""


def test_known_hosts_are_served(stack: Stack) -> None:
    for host in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST:99"):
        assert stack.get("/echo", headers={"Host": host}).status_code == 200, host


def test_error_page_is_html_by_default_and_json_on_demand(stack: Stack) -> None:
    page = stack.get("/static/none")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["X-Request-ID"] in page.text
    result = stack.get("/static/none", headers=JSON)
    assert result.status_code == 404
    assert result.headers["Content-Type"] == "application/json"
    assert result.json() == {
        "status": 404,
        "error": "Page not found.",
        "request_id": result.headers["X-Request-ID"],
    }


def test_no_answer_names_a_version(stack: Stack) -> None:
    for path in ("/echo", "/static/none", "/nowhere"):
        answer = stack.get(path)
        assert answer.headers["Server"] == "nginx"
        assert not re.search(r"nginx/\d", answer.text)


def test_a_worker_that_dies_breaks_its_own_request_only(stack: Stack) -> None:
    answer = stack.get("/kill", headers=JSON)
    assert answer.status_code == 502
    assert answer.json()["error"] == "The server stopped before it could answer."
    wait_until(stack.serves, "the next request is answered", 3)


def test_a_request_that_hangs_is_cut_off_by_harakiri(stack: Stack) -> None:
    answer = stack.get("/sleep/20000", timeout=15)
    assert answer.status_code == 502
    assert 5 <= answer.elapsed.total_seconds() <= 9
    wait_until(stack.serves, "the next request is answered", 3)


@pytest.mark.slow_on_tcp
def test_503_and_retry_after_while_the_socket_is_away(disposable_stack: Stack) -> None:
    stack = disposable_stack
    stack("stop", "uwsgi-socket", "uwsgi")
    page = stack.get("/echo", timeout=10)
    assert page.status_code == 503
    assert page.headers["Retry-After"] == "5"
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "restarting" in page.text
    assert stack.get("/echo", headers=JSON).json()["status"] == 503
    assert stack.container("nginx")["State"]["Running"]
    stack("start", "uwsgi-socket", "uwsgi")
    wait_until(stack.serves, "served again without touching nginx", 30)


@pytest.mark.slow
def test_requests_wait_while_uwsgi_is_away(disposable_stack: Stack) -> None:
    stack = disposable_stack
    stack("stop", "uwsgi")
    address = stack.url("/echo")
    try:
        requests.get(address, timeout=2)
        raise AssertionError("answered, while uwsgi is stopped")
    except requests.ReadTimeout:
        pass
    stack("start", "uwsgi")
    assert requests.get(address, timeout=20).status_code == 200


@pytest.mark.slow
def test_nginx_starts_without_the_rest(disposable_stack: Stack) -> None:
    stack = disposable_stack
    stack("rm", "--stop", "--force", "uwsgi", "uwsgi-socket")
    stack("restart", "nginx")
    wait_until(lambda: stack.get("/static/probe/style.css").status_code == 200, "static files", 20)
    assert stack.get("/echo").status_code == 503


@pytest.mark.slow_on_tcp
def test_a_full_queue_is_the_same_quick_503_on_both_transports(changed_stack: Callable[[str], Stack]) -> None:
    small_queue = changed_stack("small-queue")
    address = small_queue.url("/sleep/500")
    with ThreadPoolExecutor(60) as clients:
        answers = list(clients.map(lambda _: requests.get(address, timeout=30), range(60)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 10 <= len(answers) - len(refused) <= 30
    assert {(answer.status_code, answer.headers["Retry-After"]) for answer in refused} == {(503, "5")}
    # At once over a Unix socket, over TCP after uwsgi_connect_timeout, 1 s; not after uwsgi_read_timeout, 35 s.
    assert max(answer.elapsed.total_seconds() for answer in refused) < 15
    wait_until(small_queue.serves, "served again", 10)
