"""What `make status` and `make doctor` say of the certificate, without a stack."""

import hashlib
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from ops import certificate, front_page, stack
from ops.console import Stop
from tests.test_state import container

DAY = 86400
FOUND: dict[str, Any] = {
    "wanted": ["example.com"],
    "asks": ["example.com"],
    "sha256": "",
    "kind": "ca",
    "error": "",
    "next": 0,
    "refused": "",
    "names": ["example.com"],
    "missing": [],
    "begins": 0,
    "until": 90 * DAY,
    "renews": 60 * DAY,
    "key": "ECDSA secp256r1",
}


def test_a_good_certificate_is_one_line_and_no_problem() -> None:
    line = certificate.line(FOUND, 30 * DAY)
    assert "until 1970-04-01 00:00 UTC (60 d)" in line
    assert "renews about 1970-03-02" in line
    assert not list(certificate.problems(FOUND, 30 * DAY))


def test_the_cas_words_and_the_next_try_are_named() -> None:
    found = {**FOUND, "kind": "self-signed", "error": "example.com: Connection refused", "next": 31 * DAY}
    assert "Connection refused; next try 1970-02-01 00:00 UTC" in certificate.line(found, 30 * DAY)
    assert "Connection refused" in next(certificate.problems(found, 30 * DAY))


def test_a_certificate_that_is_about_to_end_or_lacks_a_name_is_a_problem() -> None:
    assert "ends 1970-04-01" in next(certificate.problems(FOUND, 80 * DAY))
    assert "not for www" in next(certificate.problems({**FOUND, "missing": ["www"]}, 30 * DAY))


def test_a_certificate_of_the_owners_is_replaced_by_the_owner_only() -> None:
    """`make certificate` alone would give it up."""
    found = {**FOUND, "kind": "own", "missing": ["www"]}
    for problem in certificate.problems(found, 80 * DAY):
        assert problem.endswith("make certificate CERT=... KEY=...")


def test_a_certificate_in_another_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "site.der").write_bytes(b"0\x82\x01\x02")
    with pytest.raises(Stop, match=r"site.der is not in PEM format. openssl x509 -inform der"):
        certificate.text_of(str(tmp_path / "site.der"), "CERT")


@pytest.mark.parametrize(
    ("output", "message"), [('{"kind": "ca"}', "another version. Type: make up"), ("", "make logs S=certificates")]
)
def test_a_client_that_tells_too_little_is_named(monkeypatch: pytest.MonkeyPatch, output: str, message: str) -> None:
    monkeypatch.setattr(stack, "containers", lambda *_: [container("certificates")])
    monkeypatch.setattr(certificate, "quiet", lambda *_: output)
    found = certificate.status() or {}
    assert message in certificate.line(found, 0)
    assert message in next(certificate.problems(found, 0))


WAITING = {**FOUND, "kind": "self-signed", "asks": ["example.com", "192.0.2.1"], "wanted": ["example.com"]}


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("127.0.0.1", 80), ["no CA can reach 127.0.0.1. In .env: HTTP_ADDRESS=0.0.0.0"]),
        (("0.0.0.0", 8080), ["a CA asks on port 80, and http is on 8080 here"]),
        (("0.0.0.0", 80), []),
    ],
)
def test_where_no_ca_can_ask_is_said(
    monkeypatch: pytest.MonkeyPatch, place: tuple[str, int], message: list[str]
) -> None:
    monkeypatch.setattr(certificate, "addresses", lambda *_: [])
    found = list(certificate.unreachable(WAITING, place))
    assert [part in text for part, text in zip(message, found, strict=True)] == [True] * len(message)
    for name, value in (("kind", "ca"), ("kind", "own"), ("asks", [])):
        assert not list(certificate.unreachable({**WAITING, name: value}, place))


def test_an_aaaa_record_that_leads_nowhere_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "addresses", lambda *_: ["2001:db8::1"])
    message = list(certificate.unreachable(WAITING, ("0.0.0.0", 80)))
    assert message == [
        "a CA asks example.com at 2001:db8::1 first, and this is open on IPv4 only: remove the AAAA record"
    ]
    assert not list(certificate.unreachable(WAITING, ("::", 80)))


def test_what_is_served_is_compared_with_what_is_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = MagicMock()
    connection.__enter__.return_value.getpeercert.return_value = b"served"
    monkeypatch.setattr(front_page, "over_tls", lambda *_: connection)
    same = {**WAITING, "sha256": hashlib.sha256(b"served").hexdigest()}
    assert not list(certificate.served_otherwise(same, "127.0.0.1:443"))
    assert "make restart S=nginx" in next(certificate.served_otherwise(WAITING, "127.0.0.1:443"))
    monkeypatch.undo()
    assert "https for example.com at 127.0.0.1:1 fails" in next(certificate.served_otherwise(same, "127.0.0.1:1"))


def test_a_certificate_without_its_key_is_refused_before_anything_is_done() -> None:
    with pytest.raises(Stop, match="needs its key"):
        certificate.certificate("README.md", "")
