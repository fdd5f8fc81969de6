"""https as its owner gets it: four lines in .env and `make up`, with the sample project behind it."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from certificates import certificates
from tests.support.checkout import Checkout
from tests.support.stack import free_port, run
from tests.support.tls import context

pytestmark = pytest.mark.needs_sample
# Reserved for documentation, so no CA would ever certify it, and asking for one fails.
NAME = "www.example.com"
PASSWORD = "correct-horse-battery"  # pragma: allowlist secret


class TlsSite(Checkout):
    """A checkout with https, asked under its name whatever DNS says."""

    def __init__(self, folder: Path, role: str, files: str) -> None:
        super().__init__(folder, role)
        self.environment["HTTPS_PORT"] = str(free_port())
        self.set("COMPOSE_FILE", files)
        self.set("DJANGO_ALLOWED_HOSTS", f"{NAME},localhost")
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self.session = requests.Session()
        # The certificate is self-signed; a bundle that the environment names would be used in spite of that.
        self.session.verify = self.session.trust_env = False

    def url(self, path: str) -> str:
        """Return an address by a name that this machine resolves itself."""
        return f"https://localhost:{self.environment['HTTPS_PORT']}{path}"


def made(folder: Path, role: str, files: str) -> Iterator[TlsSite]:
    """Make such a checkout, and remove what it has started."""
    checkout = TlsSite(folder, role, files)
    try:
        yield checkout
    finally:
        checkout.remove()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsSite]:
    """One over the Unix socket."""
    files = "compose.yaml:compose.unix-socket.yaml:overrides/tls.yaml"
    yield from made(tmp_path_factory.mktemp("tls-site"), "tls-site", files)


@pytest.fixture
def host_site(tmp_path: Path) -> Iterator[TlsSite]:
    """One on the host's network as well."""
    files = "compose.yaml:compose.tcp.yaml:overrides/host-network.yaml:overrides/tls.yaml"
    yield from made(tmp_path, "tls-host", files)


def test_make_up_serves_https_and_waits_for_no_ca(site: TlsSite) -> None:
    message = site.made("up")
    assert f"Ready: https://{NAME}:{site.environment['HTTPS_PORT']}/ over unix-socket" in message
    assert site.session.get(site.url("/"), timeout=20).status_code == 200
    assert site.session.get(f"http://localhost:{site.environment['HTTP_PORT']}/", timeout=20).url == site.url("/")


def test_without_an_address_among_the_hosts_a_handshake_without_a_name_is_refused(site: TlsSite) -> None:
    address = ("127.0.0.1", int(site.environment["HTTPS_PORT"]))
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        context().wrap_socket(socket.create_connection(address, timeout=20))


def test_a_form_is_accepted_over_https_and_its_cookies_are_secure(site: TlsSite) -> None:
    """Login to the admin: the token, the cookie, and the Origin that a browser sends have to agree."""
    create = f"User.objects.create_superuser('boss', password='{PASSWORD}')"
    code = f"from django.contrib.auth.models import User; {create}"
    site.made("manage", f'CMD=shell -c "{code}"')
    page = site.session.get(site.url("/admin/login/"), timeout=20)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
    assert token
    form = {"username": "boss", "password": PASSWORD, "next": "/admin/"}
    for origin, status in (("https://other.example.com", 403), (site.url(""), 302)):
        result = site.session.post(
            site.url("/admin/login/"),
            data={**form, "csrfmiddlewaretoken": token[1]},
            headers={"Origin": origin, "Referer": f"{origin}/"},
            allow_redirects=False,
            timeout=20,
        )
        assert result.status_code == status, f"{origin}: {result.text[:500]}"
    assert {cookie.name: cookie.secure for cookie in site.session.cookies} == {"csrftoken": True, "sessionid": True}


def test_the_samples_pages_have_nginxs_hsts(site: TlsSite) -> None:
    for path in ("/", "/static/none", "/nowhere"):
        result = site.session.get(site.url(path), timeout=20)
        assert result.headers["Strict-Transport-Security"] == "max-age=86400", path


def test_why_there_is_no_certificate_yet_is_said_with_what_to_change(site: TlsSite) -> None:
    message = site.refused("certificate")
    assert f"Asking for a certificate for {NAME}\n" in message
    assert "no certificate: " in message
    assert f"{NAME}, localhost  self-signed  until " in site.made("status")
    message = site.refused("doctor")
    assert "no new certificate: " in message
    assert f"a CA asks on port 80, and http is on {site.environment['HTTP_PORT']} here" in message
    assert "no CA can reach 127.0.0.1. In .env: HTTP_ADDRESS=0.0.0.0" in message


def test_your_own_certificate_is_served_by_one_command_and_by_no_other_replaced(site: TlsSite, tmp_path: Path) -> None:
    own, other = (
        certificates.self_signed([NAME, "localhost"], time.time(), ec.generate_private_key(ec.SECP256R1()))
        for _ in range(2)
    )
    for name, made_ in (("own", own), ("other", other)):
        chain, key = made_.pem.split(b"-----BEGIN PRIVATE")
        (tmp_path / f"{name}.pem").write_bytes(chain)
        (tmp_path / f"{name}.key").write_bytes(b"-----BEGIN PRIVATE" + key)
    wrong = site.refused("certificate", f"CERT={tmp_path}/own.pem", f"KEY={tmp_path}/other.key")
    assert "Nothing was changed: the key does not belong to the first certificate" in wrong
    message = site.made("certificate", f"CERT={tmp_path}/own.pem", f"KEY={tmp_path}/own.key")
    assert "Nothing is ordered or renewed any more. Back to a CA: make certificate" in message
    assert served(site) == own.leaf
    assert f"{NAME}, localhost  own  until " in site.made("status")
    assert "checks, nothing wrong." in site.made("doctor")
    site.made("restart", "S=certificates")
    site.made("up")
    assert served(site) == own.leaf


def served(site: TlsSite) -> x509.Certificate:
    """Return the certificate that is served."""
    plain = socket.create_connection(("127.0.0.1", int(site.environment["HTTPS_PORT"])), timeout=20)
    with context().wrap_socket(plain, server_hostname=NAME) as connection:
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")


@pytest.mark.slow
def test_a_changed_hsts_is_one_setting_and_a_wrong_one_is_refused(site: TlsSite) -> None:
    assert "NGINX_HSTS has" in site.refused("up", NGINX_HSTS="one year")
    site.set("NGINX_HSTS", "max-age=63072000; includeSubDomains")
    site.made("up")
    result = site.session.get(site.url("/"), timeout=20)
    assert result.headers["Strict-Transport-Security"] == "max-age=63072000; includeSubDomains"


@pytest.mark.slow
def test_make_dev_is_served_over_https_as_well(site: TlsSite) -> None:
    assert f"Ready: https://{NAME}:{site.environment['HTTPS_PORT']}/ reloads app/" in site.made("dev")
    assert site.session.get(site.url("/"), timeout=20).status_code == 200
    site.made("up")


@pytest.mark.slow
def test_it_works_on_the_hosts_network(host_site: TlsSite) -> None:
    host_site.made("up")
    assert host_site.session.get(host_site.url("/"), timeout=20).status_code == 200
    shown = ("docker", "inspect", "--format", "{{.HostConfig.NetworkMode}}")
    assert run(*shown, host_site.containers("nginx-socket")[0]).stdout == "host\n"


@pytest.mark.slow
def test_https_is_added_to_a_running_site_and_taken_away(site: TlsSite) -> None:
    port = site.environment["HTTP_PORT"]
    site.set("COMPOSE_FILE", "compose.yaml:compose.unix-socket.yaml")
    site.made("up")
    assert requests.get(f"http://localhost:{port}/", allow_redirects=False, timeout=20).status_code == 200
    site.set("COMPOSE_FILE", "compose.yaml:compose.unix-socket.yaml:overrides/tls.yaml")
    site.made("up")
    assert requests.get(f"http://localhost:{port}/", allow_redirects=False, timeout=20).status_code == 308
    assert site.session.get(site.url("/"), timeout=20).status_code == 200
