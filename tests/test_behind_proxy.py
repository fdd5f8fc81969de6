"""overrides/behind-proxy.yaml: nginx believes a proxy on this machine, after `make down` and `make up` as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.stack import Stack

pytestmark = pytest.mark.one_transport
CLIENT = "198.51.100.1"
# Not the default, so that the tests can run next to a stack that has it.
SUBNET = "172.16.253.0/29"


@pytest.fixture
def proxied(images: None, transport: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A stack behind a proxy, which is this test."""
    monkeypatch.setenv("EDGE_SUBNET", SUBNET)
    stack = Stack(transport, "proxied", ["overrides/behind-proxy.yaml"])
    try:
        yield stack.start()
    finally:
        stack.stop()


def seen(stack: Stack) -> dict[str, str]:
    """Return what Django sees of a request that a proxy has passed on."""
    headers = {"X-Forwarded-For": CLIENT, "X-Forwarded-Proto": "https"}
    return dict(stack.get("/echo", headers=headers).json()["meta"])


def test_the_proxys_word_counts_after_down_and_up(proxied: Stack) -> None:
    before = seen(proxied)
    proxied("down")
    proxied("up", "--detach", "--wait")
    after = seen(proxied)
    assert [(meta["REMOTE_ADDR"], meta["wsgi.url_scheme"]) for meta in (before, after)] == [(CLIENT, "https")] * 2
