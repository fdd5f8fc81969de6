"""The certificate comes from a CA by itself, is renewed, and whatever goes wrong with that, the site serves on.

The CA is pebble, which the makers of Let's Encrypt test their clients with (tests/ca/).
"""

from __future__ import annotations

import itertools
import json
import os
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from certificates import certificates
from certificates.certificates import DAY, MINUTE, Refused, State, Wanted, wanted
from tests.support.stack import TLS, Stack, run, wait_until
from tests.support.tls import connect, context
from tools.load import Load

# One process, or two would build the CA's image.
pytestmark = pytest.mark.xdist_group("test_certificates")
NAMES = ("www.example.com", "example.com")
OPTIONS = "server = https://ca:14000/dir\n"
ROOT_OF_THE_CA = """
import ssl, urllib.request
print(urllib.request.urlopen("https://ca:15000/roots/0", context=ssl._create_unverified_context()).read().decode())
"""


def test_a_certificate_is_asked_only_for_names_that_it_can_have() -> None:
    """No CA certifies localhost, and the owner's need not have it either."""
    both = wanted("example.com,.example.org,localhost,127.0.0.1", "authenticator = dns")
    assert certificates.expected(certificates.FROM_CA, both) == ("example.com", "example.org", "*.example.org")
    assert certificates.expected(certificates.OWN, both) == ("example.com", "example.org", "*.example.org")
    private = wanted("shop.internal,localhost", "")
    assert certificates.expected(certificates.FROM_CA, private) == ()
    assert certificates.expected(certificates.OWN, private) == ("shop.internal",)


@pytest.fixture(scope="module")
def ca_stack(images: None, transport: str, worker_id: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack of example.com with a CA next to it that has certified nothing yet."""
    folder = tmp_path_factory.mktemp("ca")
    made = certificates.self_signed(["ca"], time.time(), ec.generate_private_key(ec.SECP256R1()))
    (folder / "cert.pem").write_bytes(made.pem.partition(b"-----BEGIN PRIVATE")[0])
    (folder / "key.pem").write_bytes(key_of(made))
    (folder / "certbot.ini").write_text(OPTIONS)
    stack = Stack(transport, f"ca-{worker_id}", [*TLS, "tests/overrides/ca.yaml"])
    hosts = ",".join([*NAMES, address(stack), "localhost"])
    settings = {"TEST_CA": str(folder), "TEST_CA_SITE": address(stack), "DJANGO_ALLOWED_HOSTS": hosts}
    os.environ.update(settings)
    try:
        stack("build", "ca")
        yield stack.start()
    finally:
        stack.stop()
        for name in settings:
            del os.environ[name]


def address(stack: Stack) -> str:
    """Return the address of the site where the CA is."""
    return str(IPv4Network(stack.subnets["TEST_EDGE_SUBNET"])[9])


def key_of(served: certificates.Served) -> bytes:
    """Return the key of a certificate in PEM."""
    return bytes(served.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def client(stack: Stack, *words: str, given: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the client's container; its exit code is the caller's to judge."""
    options = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
    command = ["docker", "exec", "--interactive", *options, stack.container("certificates")["Id"], *words]
    return subprocess.run(command, input=given.decode(), capture_output=True, text=True, timeout=120, check=False)


def status(stack: Stack) -> dict[str, object]:
    """Return the client's status."""
    result: dict[str, object] = json.loads(client(stack, "certificates.py", "status").stdout)
    return result


def now(stack: Stack) -> str:
    """Get a certificate now, and return what is said."""
    done = client(stack, "certificates.py", "now")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def served(stack: Stack, name: str = NAMES[0]) -> x509.Certificate:
    """Return the certificate that nginx serves for a name."""
    with connect(stack, name) as connection:
        found = connection.getpeercert(binary_form=True)
        assert found
        return x509.load_der_x509_certificate(found)


def public_key(certificate: x509.Certificate) -> bytes:
    """Return the public key of a certificate."""
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def is_from_the_ca(stack: Stack) -> bool:
    """Return whether a client that trusts only this CA accepts what is served, for each name and the address."""
    trusting = ssl.create_default_context(cadata=client(stack, "/venv/bin/python", "-c", ROOT_OF_THE_CA).stdout)
    for name in (*NAMES, address(stack)):
        connect(stack, name, trusting).close()
    return True


def certified(stack: Stack) -> Stack:
    """Return the stack when it has its certificate."""
    wait_until(lambda: status(stack)["kind"] == "ca", "a certificate", 40)
    return stack


def test_the_first_certificate_comes_by_itself(ca_stack: Stack) -> None:
    began = datetime.fromisoformat(ca_stack.container("certificates")["State"]["StartedAt"][:26] + "+00:00")
    wait_until(lambda: is_from_the_ca(ca_stack), "a certificate of the CA for names and address", 40)
    written = float(ca_stack.exec("certificates", "stat", "--format", "%.Y", "/run/tls/site.pem"))
    print(f"from the CA {written - began.timestamp():.1f} s after the start of the client")
    result = status(ca_stack)
    assert (result["kind"], result["error"], result["failures"]) == ("ca", "", 0)
    assert str(result["account"]).startswith("https://ca:14000/")


def test_a_renewal_that_the_ca_asks_for_keeps_the_key_and_loses_nothing(ca_stack: Stack) -> None:
    """By ARI: for a certificate of an hour, pebble wants it renewed between yesterday and tomorrow.

    certbot takes a moment of that time by chance, so that every second try or so renews.
    """
    stack = certified(ca_stack)
    before = served(stack)
    with Load("127.0.0.1", stack.https_port, clients=4, slow_clients=0, fresh_clients=2, tls=context()) as load:
        for _ in range(30):
            # Otherwise certbot asks the CA again only after six hours.
            client(stack, "sed", "--in-place", "/ari_retry_after/d", "/var/lib/certificates/renewal/site.conf")
            now(stack)
            if served(stack) != before:
                break
    after = served(stack)
    assert after.serial_number != before.serial_number
    assert public_key(after) == public_key(before)
    assert load.lost() == []


@pytest.mark.one_transport
def test_a_dead_ca_is_named_and_the_site_serves_on_and_restarts_order_nothing(ca_stack: Stack) -> None:
    stack = certified(ca_stack)
    before = served(stack)
    # Not stopped: it would forget the account.
    egress, ca = f"{stack.project}_egress", stack.container("ca")["Id"]
    run("docker", "network", "disconnect", egress, ca)
    try:
        done = client(stack, "certificates.py", "now")
        assert done.returncode == 1
        failed = status(stack)
        assert failed["failures"] == 1
        assert "ca" in str(failed["error"])
        print(failed["error"])
        for _ in range(3):
            stack("restart", "certificates")
            wait_until(lambda: stack.container("certificates")["State"]["Health"]["Status"] == "healthy", "healthy")
        assert {**status(stack), "begins": 0} == {**failed, "begins": 0}
        assert served(stack).serial_number == before.serial_number
    finally:
        run("docker", "network", "connect", "--alias", "ca", egress, ca)
    now(stack)
    assert (status(stack)["failures"], status(stack)["error"]) == (0, "")


@pytest.mark.one_transport
def test_a_name_that_leads_elsewhere_is_named(ca_stack: Stack) -> None:
    stack = certified(ca_stack)
    before = served(stack)
    names = f"{NAMES[0]},missing.example.com"
    done = client(stack, "certificates.py", "now", CERTIFICATE_NAMES=names)
    assert done.returncode == 1
    assert "missing.example.com" in done.stderr
    print(done.stderr)
    assert served(stack).serial_number == before.serial_number


@pytest.mark.one_transport
def test_a_ca_that_says_429_is_asked_again_when_it_says(ca_stack: Stack) -> None:
    stack = certified(ca_stack)
    run("docker", "exec", "--detach", stack.container("ca")["Id"], "python3", "/ca/refuse.py")
    code = """
import sys; sys.path.insert(0, "/usr/local/bin")
from certificates import *
import certificates
certificates.OPTIONS = Path("/tmp/refusing.ini")
certificates.KEPT = Path("/tmp/kept"); KEPT.mkdir(exist_ok=True); certificates.KEPT.mkdir(exist_ok=True)
certificates.OPTIONS.write_text("server = http://ca:14001/directory\\n")
print(json.dumps(asdict(order(current_wish(), time.time()))))
"""
    done = client(stack, "/venv/bin/python", "-c", code)
    result = json.loads(done.stdout)
    print(result["error"])
    assert "too many certificates (5)" in result["error"]
    assert datetime.fromtimestamp(result["next"], UTC).year == 2099


@pytest.mark.one_transport
def test_your_own_certificate_is_checked_and_served_until_you_go_back(ca_stack: Stack) -> None:
    stack = certified(ca_stack)
    key = ec.generate_private_key(ec.SECP256R1())
    own = certificates.self_signed(NAMES, time.time(), key)
    expired = certificates.self_signed(NAMES, time.time() - 90 * DAY, key)
    other = certificates.self_signed(["other.example.com"], time.time(), key)
    foreign = key_of(certificates.self_signed(NAMES, 0, ec.generate_private_key(ec.SECP256R1())))
    chain = own.pem.partition(b"-----BEGIN PRIVATE")[0]
    before = served(stack)
    for pem, message in (
        (expired.pem, "expired since"),
        (other.pem, "none of which is in DJANGO_ALLOWED_HOSTS"),
        (chain + foreign, "the key does not belong to the first certificate"),
        (chain, "there is no private key"),
        (foreign, "there is no certificate"),
    ):
        done = client(stack, "certificates.py", "install", given=pem)
        assert done.returncode == 1
        assert message in done.stdout, done.stdout + done.stderr
    assert served(stack) == before
    assert client(stack, "certificates.py", "install", given=own.pem).returncode == 0
    assert served(stack) == own.leaf
    assert status(stack)["kind"] == "own"
    stack("restart", "certificates")
    assert served(stack) == own.leaf
    now(stack)
    assert status(stack)["kind"] == "ca"
    assert is_from_the_ca(stack)


# --- In this process


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The client's files, in a folder of this test."""
    monkeypatch.setattr(certificates, "SITE", tmp_path / "site.pem")
    monkeypatch.setattr(certificates, "KEPT", tmp_path)
    return tmp_path


def fails(_: Wanted) -> tuple[int, str]:
    """Fail as certbot does."""
    return 1, "  Identifier: example.com\n  Type:   connection\n  Detail: 192.0.2.1: Connection refused\n"


@pytest.mark.parametrize(
    ("hosts", "ordered", "refused"),
    [
        ("example.com,localhost", ("example.com",), ""),
        ("localhost,127.0.0.1,[::1]", (), "no public name"),
        ("app.internal,10.0.0.5,web", (), "no public name"),
        ("example.com,10.0.0.5,9.9.9.9", ("example.com", "9.9.9.9"), ""),
        (".example.com", (), "can only be proven by DNS-01"),
        ("www.example.org,.example.com", (), "can only be proven by DNS-01"),
    ],
)
def test_only_what_a_ca_can_certify_is_ordered(hosts: str, ordered: tuple[str, ...], refused: str) -> None:
    want = wanted(hosts, "# server = no\n")
    assert want.order == ordered
    assert refused in want.refused


def test_a_wildcard_is_ordered_with_its_domain_by_dns() -> None:
    want = wanted(".example.com", "authenticator = dns-cloudflare\n")
    assert want.order == ("example.com", "*.example.com")
    assert "--webroot" not in certificates.certbot(want)


def test_an_address_is_ordered_for_six_days() -> None:
    words = certificates.certbot(wanted("9.9.9.9", ""))
    assert words[-4:] == ["--ip-address", "9.9.9.9", "--preferred-profile", "shortlived"]


def test_a_private_ca_certifies_private_names() -> None:
    assert wanted("app.internal,10.0.0.5,localhost", OPTIONS).order == ("app.internal", "10.0.0.5")


def test_a_dead_ca_is_asked_once_a_day_after_the_fourth_try(kept: Path) -> None:
    """A week of the loop, by minutes, with a start of the container every hour: what is kept decides."""
    want, tries = wanted("example.com", ""), []
    certificates.provide(want, 0)
    for moment in range(0, 7 * DAY, MINUTE):
        if certificates.is_due(certificates.FROM_CA, certificates.remembered(), want, moment):
            tries.append(moment)
            certificates.order(want, moment, fails)
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert [round(pause / MINUTE) for pause in pauses[:1]] == [2]
    assert 10 <= pauses[1] / MINUTE <= 12
    assert 100 <= pauses[2] / MINUTE <= 112
    assert all(DAY <= pause <= 1.11 * DAY for pause in pauses[3:])
    assert len(tries) == 10
    assert certificates.remembered().error == "example.com: 192.0.2.1: Connection refused"


def issues(kept: Path, names: Sequence[str], moment: float) -> Callable[[Wanted], tuple[int, str]]:
    """Return what does as certbot does when it gets a certificate that begins an hour before this moment."""
    made = certificates.self_signed(names, moment, ec.generate_private_key(ec.SECP256R1()))

    def run_(_: Wanted) -> tuple[int, str]:
        folder = kept / "live/site"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "fullchain.pem").write_bytes(made.pem.partition(b"-----BEGIN PRIVATE")[0])
        (folder / "privkey.pem").write_bytes(key_of(made))
        return 0, ""

    return run_


@pytest.mark.parametrize("hours", [-1000, 0, 1000])
def test_a_wrong_clock_does_not_keep_the_cas_certificate_from_visitors(kept: Path, hours: int) -> None:
    want, moment = wanted("example.com", ""), time.time()
    certificates.provide(want, moment)
    assert certificates.order(want, moment, issues(kept, ["example.com"], moment + hours * 3600)).error == ""
    assert certificates.served().kind == certificates.FROM_CA


def test_nothing_new_from_the_ca_changes_nothing(kept: Path) -> None:
    want, moment = wanted("example.com", ""), time.time()
    asked = issues(kept, ["example.com"], moment)
    certificates.order(want, moment, asked)
    before = certificates.SITE.resolve()
    certificates.order(want, moment, asked)
    assert certificates.SITE.resolve() == before


def test_a_certificate_without_a_name_that_was_asked_for_is_not_served(kept: Path) -> None:
    want, moment = wanted("example.com,example.org", ""), time.time()
    certificates.provide(want, moment)
    state = certificates.order(want, moment, issues(kept, ["example.com"], moment))
    assert state.error == "the CA's certificate is not for example.org"
    assert certificates.served().kind == certificates.SELF_SIGNED


def test_a_client_that_dies_while_it_asks_does_not_ask_again_at_its_start(kept: Path) -> None:
    def dies(_: Wanted) -> tuple[int, str]:
        raise KeyboardInterrupt

    want = wanted("example.com", "")
    with pytest.raises(KeyboardInterrupt):
        certificates.order(want, 1000, dies)
    assert not certificates.is_due(certificates.FROM_CA, certificates.remembered(), want, 1000 + MINUTE - 1)


def test_a_clock_that_was_ahead_does_not_stop_renewals(kept: Path) -> None:
    want, moment = wanted("example.com", ""), time.time()
    certificates.order(want, moment + 9 * 365 * DAY, fails)
    assert certificates.is_due(certificates.FROM_CA, certificates.remembered(), want, moment)
    certificates.order(want, moment, fails)
    assert not certificates.is_due(certificates.FROM_CA, certificates.remembered(), want, moment + 1)


def test_changed_names_are_ordered_at_once(kept: Path) -> None:
    want = wanted("example.com", "")
    certificates.order(want, 1000, fails)
    assert not certificates.is_due(certificates.FROM_CA, certificates.remembered(), want, 1001)
    assert certificates.is_due(certificates.FROM_CA, certificates.remembered(), wanted("example.org", ""), 1001)


def test_a_full_disk_keeps_what_is_served_and_orders_nothing(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = wanted("example.com", "")
    certificates.provide(want, time.time())
    before = certificates.SITE.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(Refused, match="No space left on device"):
        certificates.publish(certificates.self_signed(["example.com"], 0, ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(Refused, match="Nothing is ordered"):
        certificates.order(want, 1000, lambda _: pytest.fail("ordered"))
    assert certificates.SITE.read_bytes() == before


@pytest.mark.parametrize("step", ["os.open", "os.fsync", "os.symlink", "os.replace", "os.rename", "os.unlink"])
def test_a_client_that_dies_at_any_step_leaves_a_certificate(
    kept: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    want = wanted("example.com", "")
    for _ in range(3):
        certificates.publish(certificates.self_signed(want.names, time.time(), ec.generate_private_key(ec.SECP256R1())))
        os.utime(certificates.SITE, (0, 0))
    new = certificates.self_signed(want.names, time.time(), ec.generate_private_key(ec.SECP256R1()))
    died = True
    with monkeypatch.context() as patched:
        patched.setattr(step, dies)
        try:
            certificates.publish(new)
            died = False
        except KeyboardInterrupt:
            pass
    assert certificates.served().names() == ["example.com"]
    assert died or certificates.served() == new
    # What was begun is no obstacle, and does not stay.
    for file in kept.glob("[0-9]*.pem"):
        os.utime(file, (0, 0))
    certificates.publish(new)
    assert certificates.served() == new
    # The link, the new one and the one before
    assert len([*kept.glob("*.pem")]) == 3


def test_a_certificate_of_a_ca_is_never_replaced_by_a_self_signed_one(kept: Path) -> None:
    long_ago = time.time() - timedelta(days=400).total_seconds()
    expired = certificates.self_signed(["example.com"], long_ago, ec.generate_private_key(ec.SECP256R1()))
    certificates.publish(replace(expired, kind=certificates.FROM_CA))
    certificates.provide(wanted("example.com,example.org", ""), time.time())
    assert certificates.served().pem == expired.pem
    certificates.publish(expired)
    certificates.provide(wanted("example.com,example.org", ""), time.time())
    assert certificates.served().names() == ["example.com", "example.org"]


def test_a_broken_file_is_replaced(kept: Path) -> None:
    certificates.SITE.write_text("broken")
    (kept / "state.json").write_text("broken")
    certificates.provide(wanted("example.com", ""), time.time())
    assert certificates.served().names() == ["example.com"]


def test_a_chain_in_the_wrong_order_is_refused() -> None:
    one, two = (certificates.self_signed([name], time.time(), ec.generate_private_key(ec.SECP256R1())) for name in "ab")
    with pytest.raises(Refused, match="certificate 1 of the chain is not signed by certificate 2"):
        certificates.read(one.pem + two.pem.partition(b"-----BEGIN PRIVATE")[0])


@pytest.mark.parametrize("lost", ["state.json", "everything"])
def test_an_own_certificate_is_neither_ordered_nor_replaced_even_if_all_else_is_lost(
    kept: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    want = wanted("example.com,example.org", "")
    monkeypatch.setattr(certificates, "current_wish", lambda: want)
    monkeypatch.setattr(certificates, "order", lambda *_: pytest.fail("ordered"))
    monkeypatch.setattr(certificates, "HEALTH", kept / "health")
    certificates.remember(State(failures=2, next=0))
    # Of its owner, for one of the names only, and more than two thirds of its life old
    then = time.time() - 25 * DAY
    own = certificates.self_signed(["example.com"], then, ec.generate_private_key(ec.SECP256R1()))
    assert certificates.install(own.pem, time.time()) == 0
    if lost == "everything":
        certificates.SITE.write_bytes(own.pem)
    (kept / "state.json").unlink()
    certificates.tick(time.time())
    assert (certificates.served().pem, certificates.served().kind) == (own.pem, certificates.OWN)
