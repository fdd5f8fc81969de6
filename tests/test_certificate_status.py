"""What `make status` and `make doctor` say of the certificate, without a stack."""

from typing import Any

import pytest

from ops import certificate
from ops.console import Stop

DAY = 86400
FOUND: dict[str, Any] = {
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


def test_a_certificate_without_its_key_is_refused_before_anything_is_done() -> None:
    with pytest.raises(Stop, match="needs its key"):
        certificate.certificate("README.md", "")
