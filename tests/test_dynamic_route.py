"""`/` reaches Django by the uwsgi protocol, and Django learns the truth about the request."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.support.stack import Stack


def echo(stack: Stack, path: str = "/echo", **options: object) -> dict[str, object]:
    """Return what Django saw."""
    answer = stack.get(path, **options)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def meta(stack: Stack, headers: dict[str, str]) -> dict[str, str]:
    """Return the environment Django saw for a request with these headers."""
    return echo(stack, headers=headers)["meta"]  # type: ignore[return-value]


def test_path_and_query_arrive_unchanged(stack: Stack) -> None:
    seen = echo(stack, "/echo/a%20b/%C3%A9?q=1&q=%26")
    assert seen["path"] == "/echo/a b/é"
    assert seen["query"] == "q=1&q=%26"


@pytest.mark.parametrize(
    "path",
    [
        "/echo.sql",
        "/echo.bak",
        "/echo~",
        "/echo/.git/config",
        "/echo/.well-known/x",
        "/echo/errors/",
        "/echo//https://a//b/",
    ],
)
def test_no_address_of_the_project_is_refused_or_changed(stack: Stack, path: str) -> None:
    assert echo(stack, path)["path"] == path


def test_the_site_is_named_as_the_client_called_it(stack: Stack) -> None:
    """As runserver does, and not by the port that is bound in nginx-socket's container."""
    seen = meta(stack, {"Host": "127.0.0.1:8123"})
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == ("127.0.0.1", "8123")
    assert meta(stack, {"Host": "127.0.0.1"})["SERVER_PORT"] == "80"
    assert seen["SCRIPT_NAME"] == ""
    assert seen["SERVER_PROTOCOL"] == "HTTP/1.1"


@pytest.mark.one_transport
def test_the_longest_host_name_is_served(stack: Stack) -> None:
    longest = ".".join(["x" * 63] * 3 + ["y" * 61])
    assert len(longest) == 253
    names = f"NGINX_SERVER_NAMES={longest},.{longest[64:]}"
    stack("run", "--rm", "--no-deps", "-T", "--env", names, "nginx", "nginx", "-t")


def test_several_workers_share_the_requests(stack: Stack) -> None:
    with ThreadPoolExecutor(4) as clients:
        answers = clients.map(lambda _: echo(stack, "/echo"), range(60))
    assert {answer["worker"] for answer in answers} == {1, 2}


def test_host_keeps_its_port(stack: Stack) -> None:
    seen = echo(stack)
    port = stack.address()[1]
    assert seen["host"] == f"localhost:{port}"
    assert seen["url"] == f"http://localhost:{port}/echo"


def test_client_cannot_forge_its_address(stack: Stack) -> None:
    forged = dict.fromkeys(("X-Forwarded-For", "X-Real-IP", "Forwarded", "X_Forwarded_For"), "198.51.100.7")
    seen = meta(stack, forged)
    assert "198.51.100.7" not in seen.values()
    assert seen["HTTP_X_FORWARDED_FOR"] == seen["REMOTE_ADDR"]


def test_client_cannot_forge_scheme_or_host(stack: Stack) -> None:
    seen = meta(stack, {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.test", "X-Forwarded-Port": "443"})
    assert seen["wsgi.url_scheme"] == "http"
    assert seen["HTTP_X_FORWARDED_PROTO"] == "http"
    assert "evil.test" not in seen.values()
    assert "443" not in seen.values()


def test_client_cannot_set_a_proxy_for_the_project(stack: Stack) -> None:
    assert "HTTP_PROXY" not in meta(stack, {"Proxy": "http://evil.test"})


def test_client_cannot_choose_the_request_id(stack: Stack) -> None:
    answer = stack.get("/echo", headers={"X-Request-ID": "forged"})
    assert answer.json()["meta"]["HTTP_X_REQUEST_ID"] == answer.headers["X-Request-ID"] != "forged"


def test_client_cannot_say_when_its_request_began(stack: Stack) -> None:
    before = time.time()
    seen = meta(stack, {"X-Request-Start": "t=1.0"})["HTTP_X_REQUEST_START"]
    assert before - 1 < float(seen.removeprefix("t=")) < time.time() + 1


def test_keep_alive_connection_serves_many_requests(stack: Stack) -> None:
    with requests.Session() as session:
        ports = {session.get(stack.url("/echo"), timeout=10).json()["meta"]["REMOTE_PORT"] for _ in range(20)}
    assert len(ports) == 1


def test_the_projects_own_errors_are_passed_on(stack: Stack) -> None:
    for code in (400, 403, 404, 418, 500, 503):
        answer = stack.get(f"/status/{code}")
        assert (answer.status_code, answer.text) == (code, f"the project's own {code}")


def test_an_exception_shows_nothing_of_the_project(stack: Stack) -> None:
    answer = stack.get("/fail")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_an_unknown_address_is_djangos_404(stack: Stack) -> None:
    answer = stack.get("/nowhere")
    assert answer.status_code == 404
    assert "Not Found" in answer.text


def test_form_is_accepted_through_the_published_port(stack: Stack) -> None:
    with requests.Session() as browser:
        token = browser.get(stack.url("/form"), timeout=10).text
        sent = {"csrfmiddlewaretoken": token}
        home = stack.url("/form")
        own = browser.post(home, sent, headers={"Origin": home.removesuffix("/form"), "Referer": home}, timeout=10)
        foreign = browser.post(home, sent, headers={"Origin": "http://evil.test"}, timeout=10)
    assert (own.status_code, own.text) == (200, "accepted")
    assert foreign.status_code == 403
