"""A client that is too fast gets a 429, and no other client does; only a trusted proxy may state client addresses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.stack import Stack

FAST, OTHER = "198.51.100.1", "198.51.100.2"


@pytest.fixture
def proxied(changed_stack: Callable[[str], Stack]) -> Stack:
    """A stack with the shipped limits that trusts the tests as its proxy."""
    return changed_stack("behind-proxy")


def burst(stack: Stack, client: str, count: int, method: str = "GET", path: str = "/echo") -> list[requests.Response]:
    """Send many requests of one client, as fast as four connections can."""
    headers = {"X-Forwarded-For": client, "Accept": "application/json"}
    address = stack.url(path)

    def one_connection(share: int) -> list[requests.Response]:
        with requests.Session() as session:
            return [session.request(method, address, headers=headers, timeout=20) for _ in range(share)]

    with ThreadPoolExecutor(4) as connections:
        return [answer for answers in connections.map(one_connection, [count // 4] * 4) for answer in answers]


def statuses(answers: list[requests.Response]) -> Counter[int]:
    """Count the answers by status."""
    return Counter(answer.status_code for answer in answers)


def test_a_client_over_the_rate_gets_429_and_others_do_not(proxied: Stack) -> None:
    """H35."""
    with ThreadPoolExecutor(2) as clients:
        fast = clients.submit(burst, proxied, FAST, 600)
        slow = clients.submit(burst, proxied, OTHER, 80)
        answers = fast.result()
        assert statuses(slow.result()) == {200: 80}
    seconds = sum(answer.elapsed.total_seconds() for answer in answers) / 4
    allowed = 100 + 10 * seconds
    assert set(statuses(answers)) == {200, 429}
    assert statuses(answers)[200] <= allowed * 1.2 + 10
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["Retry-After"] == "5"
    assert refused.json()["error"] == "Too many requests. Please wait a moment."


@pytest.mark.parametrize("path", ["/echo/login/", "/echo/accounts/login", "/echo/sign-in/"])
def test_logins_are_limited_harder_than_pages(proxied: Stack, path: str) -> None:
    client = f"198.51.100.{10 + len(path)}"
    assert statuses(burst(proxied, client, 20, "POST", path)) == {200: 6, 429: 14}
    assert statuses(burst(proxied, client, 20, "GET", path)) == {200: 20}
    assert statuses(burst(proxied, f"{client}0", 4, "POST", path)) == {200: 4}


def test_an_upload_that_is_not_there_is_no_way_around(proxied: Stack) -> None:
    assert set(statuses(burst(proxied, "198.51.100.40", 400, "GET", "/media/none"))) == {200, 429}


def test_static_files_do_not_count(proxied: Stack) -> None:
    assert statuses(burst(proxied, FAST, 400, "GET", "/static/probe/style.css")) == {200: 400}


def seen(stack: Stack, **headers: str) -> dict[str, str]:
    """Return the environment that Django saw."""
    answer = stack.get("/echo", headers={name.replace("_", "-"): value for name, value in headers.items()})
    return dict(answer.json()["meta"]) | {"answered id": answer.headers["X-Request-ID"]}


def test_the_address_a_trusted_proxy_gives_is_the_clients(proxied: Stack) -> None:
    meta = seen(proxied, X_Forwarded_For=f"203.0.113.9, {FAST}")
    assert meta["REMOTE_ADDR"] == meta["HTTP_X_FORWARDED_FOR"] == FAST, "the first is what the client itself wrote"


@pytest.mark.parametrize("forged", ["", "unknown", "1.2.3.4.5", "::gg", '"; drop'])
def test_an_address_that_is_none_is_not_taken(proxied: Stack, forged: str) -> None:
    meta = seen(proxied, X_Forwarded_For=forged)
    assert forged not in (meta["REMOTE_ADDR"], meta["HTTP_X_FORWARDED_FOR"])


@pytest.mark.parametrize(("message", "scheme"), [("https", "https"), ("http", "http"), ("javascript", "http")])
def test_the_scheme_a_trusted_proxy_gives_is_the_requests(proxied: Stack, message: str, scheme: str) -> None:
    meta = seen(proxied, X_Forwarded_Proto=message)
    assert (meta["wsgi.url_scheme"], meta["HTTP_X_FORWARDED_PROTO"]) == (scheme, scheme)


def test_the_host_a_trusted_proxy_gives_reaches_django(proxied: Stack) -> None:
    """For a proxy that cannot keep Host: Django uses it if USE_X_FORWARDED_HOST is on."""
    assert seen(proxied, X_Forwarded_Host="shop.example:8443")["HTTP_X_FORWARDED_HOST"] == "shop.example:8443"
    assert "HTTP_X_FORWARDED_HOST" not in seen(proxied, X_Forwarded_Host="a.example, b.example")


def test_the_scheme_of_a_trusted_proxy_gives_the_port(proxied: Stack) -> None:
    answer = proxied.get("/echo", headers={"Host": "localhost", "X-Forwarded-Proto": "https"})
    assert answer.json()["meta"]["SERVER_PORT"] == "443"


def test_a_trusted_proxys_request_id_goes_through(proxied: Stack) -> None:
    meta = seen(proxied, X_Request_ID="from-the-proxy-1")
    assert meta["HTTP_X_REQUEST_ID"] == meta["answered id"] == "from-the-proxy-1"
    forged = seen(proxied, X_Request_ID='"}{"status":200')
    assert forged["HTTP_X_REQUEST_ID"] == forged["answered id"]
    assert len(forged["answered id"]) == 32


def test_nobody_is_trusted_by_default(stack: Stack) -> None:
    """H23."""
    meta = seen(stack, X_Forwarded_For=FAST, X_Forwarded_Proto="https", X_Request_ID="from-the-proxy-1")
    assert FAST not in meta.values()
    assert meta["wsgi.url_scheme"] == "http"
    assert meta["answered id"] != "from-the-proxy-1"
