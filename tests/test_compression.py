"""nginx compresses text that Django sends, and nothing else; static files are compressed by the build."""

from __future__ import annotations

import pytest

from tests.support.stack import Stack

GZIP = {"Accept-Encoding": "gzip"}
TEXT = (
    "text/html",
    "text/csv",
    "text/javascript",
    "application/json",
    "application/xml",
    "application/rss+xml",
    "image/svg+xml",
)


def encoding(stack: Stack, path: str, **headers: str) -> str | None:
    """Return how an answer is encoded for a client that takes gzip."""
    return stack.get(path, headers={**GZIP, **headers}).headers.get("Content-Encoding")


@pytest.mark.parametrize("content_type", TEXT)
def test_text_is_compressed(stack: Stack, content_type: str) -> None:
    answer = stack.get(f"/typed/5000/{content_type}", headers=GZIP, stream=True)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert len(answer.raw.read(decode_content=False)) < 500
    assert len(stack.get(f"/typed/5000/{content_type}", headers=GZIP).text) == 5000


@pytest.mark.parametrize("path", ["/typed/900/text/html", "/typed/5000/image/png", "/typed/5000/text/event-stream"])
def test_what_is_short_or_no_text_is_not(stack: Stack, path: str) -> None:
    assert encoding(stack, path) is None


def test_a_client_that_takes_no_gzip_gets_none(stack: Stack) -> None:
    answer = stack.get("/typed/5000/text/html", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in answer.headers
    # A cache in between must not give it to others, nor the other one to it.
    assert answer.headers["Vary"] == "Accept-Encoding"


def test_what_django_has_compressed_is_not_compressed_again(stack: Stack) -> None:
    answer = stack.get("/packed", headers=GZIP)
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.text.startswith("Text repeats itself.")


def test_a_view_can_ask_for_none(stack: Stack) -> None:
    """For a page that shows a secret next to what its visitor has sent (BREACH)."""
    assert encoding(stack, "/typed/5000/text/html?identity") == "identity"


def test_clients_behind_a_cdn_or_an_old_proxy_get_it_as_well(stack: Stack) -> None:
    assert encoding(stack, "/typed/5000/text/html", Via="1.1 cdn") == "gzip"
    asked = b"GET /typed/5000/text/html HTTP/1.0\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n"
    assert b"Content-Encoding: gzip" in stack.raw(asked)


def test_a_compressed_answer_can_be_revalidated(stack: Stack) -> None:
    """Its ETag becomes a weak one, since the bytes differ; Django compares it as such."""
    tag = stack.get("/typed/5000/text/html", headers=GZIP).headers["ETag"]
    assert tag == 'W/"5000"'
    again = stack.get("/typed/5000/text/html", headers={**GZIP, "If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_an_upload_of_text_is_compressed(stack: Stack) -> None:
    address = stack.post("/upload/table.csv", b"number,square\n" * 500).text
    assert encoding(stack, address) == "gzip"


@pytest.mark.one_transport
def test_one_setting_turns_it_off(stack: Stack) -> None:
    once = ("run", "--rm", "--no-deps", "-T", "--env", "NGINX_GZIP=off", "nginx", "nginx", "-T")
    assert "\ngzip off;" in stack(*once)
