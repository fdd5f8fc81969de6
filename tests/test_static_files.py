"""nginx serves /static/ from its own disk: hashed, compressed, and while uWSGI is away."""

import json
import re

import pytest

from tests.support.stack import Stack

PLAIN = "/static/probe/style.css"


def hashed(stack: Stack) -> str:
    """Return the address of the stylesheet under the name that carries its hash."""
    manifest = json.loads(stack.exec("uwsgi", "cat", "/srv/static/staticfiles.json"))
    return f"/static/{manifest['paths']['probe/style.css']}"


def test_hashed_names_are_kept_for_good(stack: Stack) -> None:
    answer = stack.get(hashed(stack))
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["Content-Type"] == "text/css; charset=utf-8"


def test_plain_names_are_asked_for_again(stack: Stack) -> None:
    assert stack.get(PLAIN).headers["Cache-Control"] == "public, max-age=300"


@pytest.mark.parametrize(("accepted", "sent"), [("br, gzip", "br"), ("gzip", "gzip"), ("identity", None)])
def test_compressed_at_build_for_those_who_take_it(stack: Stack, accepted: str, sent: str | None) -> None:
    answer = stack.get(hashed(stack), headers={"Accept-Encoding": accepted}, stream=True)
    assert answer.headers.get("Content-Encoding") == sent
    assert answer.headers["Vary"] == "Accept-Encoding"
    whole = int(stack.get(hashed(stack), headers={"Accept-Encoding": "identity"}).headers["Content-Length"])
    assert (int(answer.headers["Content-Length"]) < whole) == bool(sent)


def test_every_collected_file_is_published(stack: Stack) -> None:
    collected = stack.exec("uwsgi", "sh", "-c", "cd /srv/static && find . -type f -exec sha256sum {} + | sort")
    published = stack.exec("nginx", "sh", "-c", "cd /srv/static && find . -type f -exec sha256sum {} + | sort")
    assert len(collected.splitlines()) >= 5
    assert published == collected


def test_a_missing_file_is_nginxs_404_and_not_kept(stack: Stack) -> None:
    answer = stack.get("/static/probe/none.0123456789ab.css")
    assert answer.status_code == 404
    assert "Page not found" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/static../etc/passwd",
        "/static/../../etc/passwd",
        "/static/%2e%2e/%2e%2e/etc/passwd",
        "/static/..%2f..%2fetc/passwd",
    ],
)
def test_nothing_outside_the_folder_is_served(stack: Stack, path: str) -> None:
    answer = stack.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert re.match(rb"HTTP/1.1 40[04] ", answer), answer[:200]
    assert b"root:" not in answer


def test_hidden_files_are_not_served(stack: Stack) -> None:
    release = ("run", "--rm", "-T", "--no-deps", "release", "sh", "-c")
    stack(*release, "cd /srv/published && mkdir .git && touch .git/config probe/.style.css.new")
    for path in ("/static/.git/config", "/static/%2egit/config", "/static/probe/.style.css.new"):
        answer = stack.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 404 "), path
        assert b"Page not found" in answer
    stack(*release, "cd /srv/published && rm -r .git probe/.style.css.new")


@pytest.mark.slow_on_tcp
def test_served_while_uwsgi_is_stopped(disposable_stack: Stack) -> None:
    address = hashed(disposable_stack)
    disposable_stack("stop", "uwsgi", "uwsgi-socket")
    assert disposable_stack.get(address, timeout=5).status_code == 200
