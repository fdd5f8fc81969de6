"""overrides/tls.yaml: https at once, with settings that Mozilla recommends, for our names only; http is redirected."""

from __future__ import annotations

import json
import os
import re
import ssl
import time
import warnings
from datetime import datetime
from pathlib import Path

import h2.errors
import h2.exceptions
import pytest
import requests

from tests.support.stack import ROOT, Stack, run, wait_until
from tests.support.tls import SWAP, X25519, X25519MLKEM768, Http2, ask, chosen_group, connect, context, get, serial
from tests.test_containers import privileges
from tests.test_supply import bills_of_materials
from tools.load import Load

HSTS = b"strict-transport-security: max-age=86400\r\n"
CERTIFICATE = "/run/tls/site.pem"


def answer(stack: Stack, path: str, *headers: str, method: str = "GET", name: str | None = "localhost") -> bytes:
    """Return the answer over https."""
    return ask(stack, get(path, *headers, method=method), name)


def echo(stack: Stack, *headers: str) -> dict[str, str]:
    """Return what Django sees of a request over https."""
    result: dict[str, str] = json.loads(answer(stack, "/echo", *headers).partition(b"\r\n\r\n")[2])
    return result


def test_https_answers_at_once_without_a_ca(tls_stack: Stack) -> None:
    """There is no CA in this stack at all. Within a second, on a machine that has nothing else to do."""
    assert answer(tls_stack, "/echo").startswith(b"HTTP/1.1 200 ")
    started = datetime.fromisoformat(tls_stack.container("certificates")["State"]["StartedAt"][:26] + "+00:00")
    written = float(tls_stack.exec("certificates", "stat", "--format", "%.Y", CERTIFICATE))
    print(f"a certificate {written - started.timestamp():.2f} s after the start of its container")
    assert written - started.timestamp() < 10


def test_the_settings_are_mozillas(tls_stack: Stack) -> None:
    """Version 1.2 and 1.3, no older; only ciphers with forward secrecy and authenticated encryption."""
    old = context()
    with warnings.catch_warnings(action="ignore"):  # Python's own, of old versions
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        connect(tls_stack, with_=old)
    newer = context()
    newer.maximum_version = ssl.TLSVersion.TLSv1_2
    with connect(tls_stack, with_=newer) as connection:
        cipher, version_, _ = connection.cipher() or ("", "", 0)
    assert (cipher[:12], version_) == ("ECDHE-ECDSA-", "TLSv1.2")
    newer.set_ciphers("ECDHE-ECDSA-AES128-SHA256:AES128-GCM-SHA256")
    with pytest.raises(ssl.SSLError):
        connect(tls_stack, with_=newer)
    with connect(tls_stack) as connection:
        assert connection.version() == "TLSv1.3"


def test_the_key_exchange_is_safe_from_quantum_computers_where_the_client_can(tls_stack: Stack) -> None:
    """Clients that can name it first, and theirs is the choice."""
    assert chosen_group(tls_stack, [X25519MLKEM768, X25519]) == X25519MLKEM768
    assert chosen_group(tls_stack, [X25519]) == X25519


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_also_after_a_new_certificate(tls_stack: Stack, version: ssl.TLSVersion) -> None:
    client = context()
    client.minimum_version = client.maximum_version = version
    with connect(tls_stack, with_=client) as first:
        first.sendall(get("/version"))
        while first.recv(65_536):
            pass
        session = first.session
    assert session
    swap(tls_stack, 1)
    with connect(tls_stack, with_=client, session=session) as second:
        second.sendall(get("/version"))
        assert second.recv(100).startswith(b"HTTP/1.1 200 ")
        assert second.session_reused


def test_an_unknown_name_is_refused_in_the_handshake(tls_stack: Stack) -> None:
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        connect(tls_stack, "other.example.com")


def test_no_name_is_answered_because_addresses_are_among_the_hosts(tls_stack: Stack) -> None:
    assert ask(tls_stack, get("/echo", host="127.0.0.1"), None).startswith(b"HTTP/1.1 200 ")


def test_a_host_other_than_the_name_in_the_handshake_gets_nothing(tls_stack: Stack) -> None:
    assert ask(tls_stack, get("/echo", host="other.example.com")) == b""
    assert ask(tls_stack, get("/echo", host="other.example.com"), None) == b""


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_http_is_redirected_with_method_path_and_query(tls_stack: Stack, method: str) -> None:
    path = "/echo/a%20b%0A?c=%2F&d"
    result = requests.request(method, tls_stack.url(path), allow_redirects=False, timeout=20)
    assert (result.status_code, result.headers["Location"]) == (308, f"https://localhost:{tls_stack.https_port}{path}")
    assert "Strict-Transport-Security" not in result.headers
    assert result.headers["X-Content-Type-Options"] == "nosniff"


def test_nothing_but_redirects_is_served_over_http(tls_stack: Stack) -> None:
    assert tls_stack.raw(get("/echo", host="other.example.com")) == b""
    for path in ("/static/probe/style.css", "/media/x", "/echo", "/.git/config"):
        assert tls_stack.get(path, allow_redirects=False).status_code == 308, path


def test_the_challenge_of_a_ca_is_answered_over_http(tls_stack: Stack) -> None:
    folder = "/srv/challenge/.well-known/acme-challenge"
    tls_stack.exec("certificates", "sh", "-c", f"mkdir -p {folder} && echo proof >{folder}/token")
    assert tls_stack.get("/.well-known/acme-challenge/token", allow_redirects=False).text == "proof\n"
    assert tls_stack.get("/.well-known/acme-challenge/other", allow_redirects=False).status_code == 404


def test_http_sent_to_the_port_of_https_is_redirected(tls_stack: Stack) -> None:
    address = f"localhost:{tls_stack.https_port}"
    result = requests.get(f"http://{address}/echo?a", allow_redirects=False, timeout=20)
    assert (result.status_code, result.headers["Location"]) == (308, f"https://{address}/echo?a")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/echo", 200), ("/static/probe/style.css", 200), ("/static/none", 404), ("/nowhere", 404), ("/fail", 500)],
)
def test_every_answer_over_https_has_hsts_once(tls_stack: Stack, path: str, status: int) -> None:
    head = answer(tls_stack, path).partition(b"\r\n\r\n")[0].lower() + b"\r\n"
    assert int(head.split()[1]) == status
    assert head.count(HSTS) == head.count(b"strict-transport-security") == 1
    assert b"includesubdomains" not in head


def test_what_nginx_refuses_has_hsts_as_well(tls_stack: Stack) -> None:
    head = ask(tls_stack, b"NO HTTP\r\n\r\n").lower()
    assert head.startswith(b"http/1.1 400 ")
    assert HSTS in head


def test_django_sees_https_and_a_client_cannot_say_otherwise(tls_stack: Stack) -> None:
    for forged in ((), ("X-Forwarded-Proto: http",), ("X-Forwarded-Ssl: off",), ("Https: off",)):
        result = echo(tls_stack, *forged)
        assert (result["scheme"], result["url"]) == ("https", "https://localhost/echo"), forged


def test_django_https_follows_by_itself(tls_stack: Stack) -> None:
    for service in ("uwsgi", "release"):
        assert "DJANGO_HTTPS=1" in tls_stack.container(service)["Config"]["Env"]


def test_http2_answers_100_requests_at_once(tls_stack: Stack) -> None:
    client = Http2(tls_stack)
    assert client.statuses(["/static/probe/style.css"] * 99 + ["/echo"]) == [200] * 100
    client.close()


def test_a_client_has_at_most_200_requests_over_http2_at_the_same_time(tls_stack: Stack) -> None:
    """Two connections whose requests never end; the third one's are refused."""
    clients = [Http2(tls_stack) for _ in range(3)]
    for client in clients:
        for _ in range(100):
            client.begin("/echo", "POST")
        client.flush()
        # In the order of the connections
        time.sleep(0.2)
    assert clients[2].answers(100) == [429] * 100
    for client in clients:
        client.close()
    wait_until(lambda: answer(tls_stack, "/echo").startswith(b"HTTP/1.1 200 "), "served", 10)


def test_a_connection_ends_after_1000_requests(tls_stack: Stack) -> None:
    """Which bounds what an HTTP/2 client can do by opening streams and resetting them."""
    one = get("/static/probe/style.css").replace(b"Connection: close\r\n", b"")
    answers = ask(tls_stack, one * 1001)
    assert answers.count(b"HTTP/1.1 200 ") == 1000
    assert answers.count(b"Connection: close") == 1


def test_a_client_that_opens_and_resets_streams_disturbs_no_other(tls_stack: Stack) -> None:
    """Rapid reset, CVE-2023-44487: for two seconds, and until nginx has had enough, from this machine to itself."""
    began, opened, closed = time.monotonic(), 0, 0
    client = Http2(tls_stack)
    with Load("127.0.0.1", tls_stack.https_port, clients=2, slow_clients=0, least=50, tls=context()) as load:
        while (took := time.monotonic() - began) < 2 or (not closed and took < 20):
            try:
                for _ in range(20):
                    client.state.reset_stream(client.begin("/echo"), h2.errors.ErrorCodes.CANCEL)
                    opened += 1
                client.flush()
            except (OSError, h2.exceptions.ProtocolError):
                closed += 1
                client.close()
                client = Http2(tls_stack)
    print(f"{opened} streams opened and reset, {closed} connections closed by nginx")
    assert closed > 0
    # All come from one address here, and nginx counts what it reads at once, however high the rate.
    assert [line for line in load.lost() if ": 429 " not in line] == []


def swap(stack: Stack, count: int, kind: str = "same-key") -> None:
    """Replace the certificate so often, five times a second."""
    stack.exec("certificates", "/venv/bin/python", "-c", SWAP, str(count), kind)


def https_load(stack: Stack) -> Load:
    """Return a load over https: connections that are kept, and full handshakes."""
    return Load("127.0.0.1", stack.https_port, clients=4, slow_clients=1, fresh_clients=4, tls=context(), least=300)


def test_the_next_handshake_has_the_new_certificate(tls_stack: Stack) -> None:
    before = serial(tls_stack)
    swap(tls_stack, 1)
    began = time.monotonic()
    assert serial(tls_stack) != before
    print(f"seen after {time.monotonic() - began:.3f} s")


@pytest.mark.parametrize(("count", "kind"), [(10, "new-keys"), pytest.param(50, "same-key", marks=pytest.mark.slow)])
def test_a_new_certificate_loses_no_request(tls_stack: Stack, count: int, kind: str) -> None:
    before = serial(tls_stack)
    with https_load(tls_stack) as load:
        swap(tls_stack, count, kind)
    print(f"{count} swaps ({kind}), {load.requests} requests")
    assert load.lost() == []
    assert serial(tls_stack) != before


@pytest.mark.slow
def test_a_restart_of_nginx_loses_no_request_over_https(tls_stack: Stack) -> None:
    with https_load(tls_stack) as load:
        tls_stack("restart", "nginx")
        wait_until(lambda: answer(tls_stack, "/echo").startswith(b"HTTP/1.1 200 "), "served", 20)
    assert load.lost() == []


@pytest.mark.slow
def test_a_reload_of_nginx_loses_some(tls_stack: Stack) -> None:
    """The control: how certificates are usually replaced, and that the load would notice a lost request."""
    with https_load(tls_stack) as load:
        for _ in range(10):
            run("kill", "-HUP", tls_stack.processes("nginx")[0])
            time.sleep(1)
    print(f"10 reloads, {load.requests} requests, {len(load.failures)} lost")
    assert load.lost() != []


def test_the_certificates_container_passes_docker_bench(tls_stack: Stack) -> None:
    rows = privileges(tls_stack.container("certificates"))
    # Of the host it has certbot's options, read-only.
    rows.pop("5.6 no directories of the host")
    assert [row for row, met in rows.items() if not met] == []
    binds = [mount for mount in tls_stack.container("certificates")["Mounts"] if mount["Type"] == "bind"]
    assert {mount["Destination"] for mount in binds} == {"/etc/certbot.ini", "/run/secrets/ca-bundle"}
    assert not any(mount["RW"] for mount in binds)


def test_nothing_but_two_volumes_joins_nginx_and_the_client(tls_stack: Stack) -> None:
    services = ("nginx-socket", "nginx", "uwsgi-socket", "uwsgi", "release", "certificates")
    mounts = {service: tls_stack.container(service)["Mounts"] for service in services}
    shared = {"tls": True, "challenge": True, "certificates": False}
    for volume, with_nginx in shared.items():
        has = {
            service: mount["RW"]
            for service in services
            for mount in mounts[service]
            if mount.get("Name", "").endswith(f"_{volume}")
        }
        assert has == ({"nginx": False} if with_nginx else {}) | {"certificates": True}, volume
    networks = {
        service: {name.rpartition("_")[2] for name in tls_stack.container(service)["NetworkSettings"]["Networks"]}
        for service in services
    }
    assert networks["certificates"] == {"egress"}
    assert not any("egress" in networks[service] for service in services[:-1])


def test_the_key_is_readable_by_two_services_and_in_no_log(tls_stack: Stack) -> None:
    assert tls_stack.exec(
        "nginx", "stat", "--dereference", "--format", "%u:%g %a", CERTIFICATE, "/run/tls"
    ).splitlines() == [
        "10110:10110 640",
        "10110:10110 750",
    ]
    key = tls_stack.exec("certificates", "cat", CERTIFICATE).partition("PRIVATE KEY-----\n")[2][:60]
    assert key
    assert key not in tls_stack("logs")


def test_nginx_serves_https_again_after_its_restart(tls_stack: Stack) -> None:
    tls_stack("restart", "nginx")
    wait_until(lambda: answer(tls_stack, "/echo").startswith(b"HTTP/1.1 200 "), "served", 20)


@pytest.mark.slow
@pytest.mark.one_transport
def test_the_bill_of_materials_names_the_client(
    tls_stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written = bills_of_materials(tls_stack, monkeypatch, tmp_path)
    assert "pkg:pypi/certbot@" in (written / "certificates.cdx.json").read_text()


def sslyze(stack: Stack, home: Path, *options: str) -> str:
    """Return what sslyze says of the site."""
    command = [str(ROOT / ".venv/bin/python"), "-m", "sslyze", *options, f"localhost:{stack.https_port}"]
    done = run(*command, environment={**os.environ, "HOME": str(home)})
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.one_transport
def test_no_request_is_taken_before_the_handshake_ends(tls_stack: Stack, tmp_path: Path) -> None:
    """0-RTT: someone on the wire could send such a request again, and Django could not tell."""
    result = json.loads(sslyze(tls_stack, tmp_path, "--early_data", "--json_out=-"))
    found = result["server_scan_results"][0]["scan_result"]["tls_1_3_early_data"]
    assert (found["status"], found["result"]) == ("COMPLETED", {"supports_early_data": False})


@pytest.mark.slow
@pytest.mark.one_transport
@pytest.mark.parametrize("profile", ["5.7", "6.0"])
def test_sslyze_finds_it_compliant(tls_stack: Stack, profile: str, tmp_path: Path) -> None:
    """Against the intermediate profile that sslyze brings, and the newest."""
    options = ["--mozilla_config=intermediate"]
    if profile != "5.7":
        options = [f"--custom_tls_config={ROOT / 'tests/support/mozilla-intermediate-6.0.json'}"]
    result = sslyze(tls_stack, tmp_path, *options)
    # Not compliant for this reason alone: a stack without a CA has a self-signed certificate.
    assert re.findall(r"^        \* (\w+):.*", result, re.MULTILINE) == ["certificate_path_validation"], result
