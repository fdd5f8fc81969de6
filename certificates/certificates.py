#!/venv/bin/python
"""Keeps the certificate that nginx serves: self-signed at first, then from a CA by certbot, renewed while it is valid.

nginx follows the link /run/tls/site.pem at each full handshake, so whatever it leads to is served from then on.

Without an argument: the container's only process, which never ends. With one, inside the running container:
  now       get a certificate now, whatever happened before (`make certificate`)
  install   check the chain and key on the input and serve them (`make certificate CERT=... KEY=...`)
  status    print what is served and what comes next, as JSON
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# A link to the file with chain and key
SITE = Path("/run/tls/site.pem")
KEPT = Path("/var/lib/certificates")
# For the health check: changed at each tick
HEALTH = Path("/tmp/health")  # noqa: S108 - the container's own
OPTIONS = Path("/etc/certbot.ini")
CA_BUNDLE = Path("/run/secrets/ca-bundle")
CHALLENGE = Path("/srv/challenge")
# certbot's name for our only certificate
LINEAGE = "site"

# Where a certificate is from. It is the first line of what nginx serves, which skips such lines: in a file of its own,
# it could be lost, and a certificate of the owner's be replaced.
SELF_SIGNED, OWN, FROM_CA = "self-signed", "own", "ca"
ORIGIN = re.compile(rb"# (self-signed|own|ca)\n")

MINUTE, HOUR, DAY = 60, 3600, 86400
# After the first, second and third failure in a row, and after every other: Let's Encrypt's own advice. It allows five
# failed validations of a name per hour, and five certificates for the same names per week.
PAUSES = (MINUTE, 10 * MINUTE, 100 * MINUTE, DAY)
# When certbot asks the CA whether to renew. A CA may want a six-day certificate back sooner (ARI).
EVERY = 12 * HOUR
TICK_SECONDS = 20
# Below the age at which the health check calls the loop dead
CERTBOT_SECONDS = 300
SELF_SIGNED_DAYS = 30
# No CA that browsers trust may sign these.
PRIVATE = re.compile(r"[^.]+|.*\.(local|localhost|internal|intranet|lan|home|corp|test|invalid|home\.arpa)")
LOOPBACK = re.compile(r"localhost|.*\.localhost|127\..*|::1")
PUBLIC_CA = "letsencrypt.org"
NEEDS_DNS = "can only be proven by DNS-01: set it up (docs/operations.md), or list each name in DJANGO_ALLOWED_HOSTS"


class Refused(Exception):
    """A certificate that will not be served, or a name that cannot have one. The message says what to do."""


@dataclass(frozen=True)
class State:
    """What has to be known after a restart of the orders. Times in seconds since 1970."""

    # Of the names and options that the failures below are about
    asked: str = ""
    failures: int = 0
    error: str = ""
    # When the CA was asked, and when it is to be asked again
    last: float = 0.0
    next: float = 0.0


@dataclass(frozen=True)
class Wanted:
    """What DJANGO_ALLOWED_HOSTS and certbot.ini ask for."""

    # All names, for the self-signed certificate
    names: tuple[str, ...]
    # Those to be certified by a CA
    order: tuple[str, ...]
    # Why there is nothing to order
    refused: str
    # Of all that decides about an order
    asked: str
    authenticator: bool = False


# --- What is wanted


def is_address(name: str) -> bool:
    """Return whether a name is an IP address."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False


def options(text: str) -> dict[str, str]:
    """Return the options of a certbot.ini."""
    return dict(re.findall(r"^[ \t]*([a-z0-9-]+)[ \t]*=[ \t]*(.*?)[ \t]*$", text, re.MULTILINE))


def can_be_certified(name: str, public_ca: bool) -> bool:
    """Return whether a CA may sign this name. A private one may sign whatever is not this machine itself."""
    if LOOPBACK.fullmatch(name):
        return False
    if not public_ca:
        return True
    return ipaddress.ip_address(name).is_global if is_address(name) else not PRIVATE.fullmatch(name)


def wanted(hosts: str, ini: str) -> Wanted:
    """Return what to serve and what to order for these hosts, as DJANGO_ALLOWED_HOSTS has them."""
    hosts_ = [host.strip().strip("[]").lower() for host in hosts.split(",")]
    chosen = options(ini)
    authenticator = "authenticator" in chosen
    public_ca = PUBLIC_CA in chosen.get("server", PUBLIC_CA)
    names: dict[str, None] = {}
    order: dict[str, None] = {}
    refused = ""
    for host in filter(None, hosts_):
        both = [host[1:], f"*{host}"] if host.startswith(".") else [host]
        names |= dict.fromkeys(both)
        if can_be_certified(both[0], public_ca):
            order |= dict.fromkeys(both)
            if len(both) > 1 and not authenticator:
                refused = f"{host} {NEEDS_DNS}"
    if not order:
        refused = f"no public name in DJANGO_ALLOWED_HOSTS: {hosts}"
    asked = json.dumps([sorted(order), sorted(chosen.items())])
    return Wanted(tuple(names), () if refused else tuple(order), refused, asked, authenticator)


# --- What is served


@dataclass(frozen=True)
class Served:
    """A chain and its key that belong together."""

    pem: bytes
    chain: tuple[x509.Certificate, ...]
    # Two objects of one key are not equal.
    key: PrivateKeyTypes = field(compare=False)
    # Without a word about it, it is the owner's, which nothing replaces
    kind: str = OWN

    @property
    def leaf(self) -> x509.Certificate:
        """Return the certificate of the site."""
        return self.chain[0]

    def names(self) -> list[str]:
        """Return the names and addresses that it is for."""
        with contextlib.suppress(x509.ExtensionNotFound):
            found = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            return [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]
        return []

    def kind_of_key(self) -> str:
        """Return the kind of its key, for people."""
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return f"ECDSA {self.key.curve.name}"
        return f"RSA {self.key.key_size}" if isinstance(self.key, rsa.RSAPrivateKey) else type(self.key).__name__

    def covers(self, name: str) -> bool:
        """Return whether it is for this name."""
        return name in self.names() or f"*.{name.partition('.')[2]}" in self.names()

    def lacks(self, names: Sequence[str]) -> list[str]:
        """Return those of these names that it is not for."""
        return [name for name in names if not self.covers(name)]

    def share_of_life(self, now: float) -> float:
        """Return how much of its life is over: below 0 not yet valid, above 1 expired."""
        begins, ends = self.leaf.not_valid_before_utc.timestamp(), self.leaf.not_valid_after_utc.timestamp()
        return float((now - begins) / (ends - begins))


def read(pem: bytes) -> Served:
    """Return a chain and key in PEM. Raises Refused if they cannot be served."""
    try:
        chain = tuple(x509.load_pem_x509_certificates(pem))
    except ValueError as wrong:
        raise Refused("there is no certificate in PEM format (-----BEGIN CERTIFICATE-----)") from wrong
    block = re.search(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?-----END \1PRIVATE KEY-----", pem, re.DOTALL)
    if not block:
        raise Refused("there is no private key in PEM format (-----BEGIN PRIVATE KEY-----)")
    try:
        key = load_pem_private_key(block[0], None)
    except TypeError as wrong:
        raise Refused("the key has a password. Take it off: openssl pkey -in KEY -out NEW") from wrong
    except ValueError as wrong:
        raise Refused(f"the key cannot be read: {wrong}") from wrong
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != chain[0].public_key().public_bytes(*form):
        raise Refused("the key does not belong to the first certificate")
    for number, (signed, issuer) in enumerate(itertools.pairwise(chain), 1):
        try:
            signed.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature) as wrong:
            raise Refused(f"certificate {number} of the chain is not signed by certificate {number + 1}") from wrong
    return Served(pem, chain, key)


def served() -> Served:
    """Return what nginx serves. Raises Refused if it can serve nothing."""
    try:
        content = SITE.read_bytes()
    except OSError as problem:
        raise Refused(f"cannot read {SITE}: {problem.strerror}") from problem
    first = ORIGIN.match(content)
    found = read(content[first.end() :] if first else content)
    return replace(found, kind=first[1].decode()) if first else found


def publish(new: Served) -> None:
    """Have nginx serve this from the next handshake on: all of it or nothing, even if the power fails."""
    new_file, link = SITE.with_name(f"{time.time_ns()}.pem"), SITE.with_suffix(".new")
    # A handshake may have followed the link a moment ago, and not yet read both certificate and key: the one before
    # stays, and what is younger than a minute.
    keep = {new_file, SITE.resolve()}
    try:
        # Its group is nginx's way to read it.
        with os.fdopen(os.open(new_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640), "wb") as file:
            file.write(f"# {new.kind}\n".encode() + new.pem)
            file.flush()
            os.fsync(file.fileno())
        link.unlink(missing_ok=True)
        link.symlink_to(new_file.name)
        link.replace(SITE)
        for old in set(SITE.parent.glob("[0-9]*.pem")) - keep:
            if time.time() - old.stat().st_mtime > MINUTE:
                old.unlink()
    except OSError as problem:
        raise Refused(f"cannot write {SITE}, so the old certificate stays: {problem.strerror}") from problem
    say(f"serving {', '.join(new.names())} until {new.leaf.not_valid_after_utc:%F %T} UTC")


def self_signed(names: Sequence[str], now: float, key: ec.EllipticCurvePrivateKey) -> Served:
    """Return a certificate that encrypts, and that browsers warn about, until a CA has signed one."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self-signed")])
    alternatives = [x509.IPAddress(ipaddress.ip_address(n)) if is_address(n) else x509.DNSName(n) for n in names]
    began = datetime.fromtimestamp(now, UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        # An hour for clocks that are behind
        .not_valid_before(began - timedelta(hours=1))
        .not_valid_after(began + timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return replace(read(certificate.public_bytes(Encoding.PEM) + private), kind=SELF_SIGNED)


def of_the_ca() -> Served:
    """Return the certificate that certbot has. Raises Refused if there is none."""
    folder = KEPT / "live" / LINEAGE
    try:
        found = read((folder / "fullchain.pem").read_bytes() + (folder / "privkey.pem").read_bytes())
    except OSError as problem:
        raise Refused(f"certbot has no certificate: {problem}") from problem
    return replace(found, kind=FROM_CA)


# --- What is remembered


def remembered() -> State:
    """Return the state; a broken one is that of the beginning."""
    try:
        found = json.loads((KEPT / "state.json").read_text())
        # Another version of this program may have had other fields.
        return State(**{name: type(default)(found[name]) for name, default in asdict(State()).items() if name in found})
    except (OSError, ValueError, TypeError):
        return State()


def remember(state: State) -> State:
    """Write the state, all of it or nothing. Without room on the disk it is as it was, and that is logged."""
    new_file = KEPT / "state.new"
    try:
        new_file.write_text(json.dumps(asdict(state)))
        new_file.replace(KEPT / "state.json")
    except OSError as problem:
        raise Refused(f"cannot write {KEPT}: {problem.strerror}. Nothing is ordered without it") from problem
    return state


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the lock: the loop and `make certificate` are two processes."""
    with (KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --- The loop


def provide(want: Wanted, now: float) -> None:
    """Make sure that nginx has something to serve. What a CA or the owner has signed is never replaced by less."""
    try:
        current = served()
    except Refused as problem:
        if SITE.exists():
            say(str(problem))
        with contextlib.suppress(Refused):
            publish(of_the_ca())
            return
    else:
        fresh = 0 <= current.share_of_life(now) < 2 / 3 and set(current.names()) == set(want.names)
        if current.kind != SELF_SIGNED or fresh:
            return
    publish(self_signed(want.names, now, ec.generate_private_key(ec.SECP256R1())))


def is_due(kind: str, state: State, want: Wanted, now: float) -> bool:
    """Return whether to ask the CA: at once if something else is wanted, later after a failure."""
    if kind == OWN or not want.order:
        return False
    # A clock that was ahead, and has been set right, would leave years to wait.
    return now >= state.next or now < state.last - HOUR or state.asked != want.asked


def certbot(want: Wanted) -> list[str]:
    """Return the command that gets or renews the certificate; it does nothing while there is no need."""
    words = ["certbot", "certonly", "--config", str(OPTIONS), "--non-interactive", "--agree-tos"]
    words += ["--config-dir", str(KEPT), "--work-dir", "/tmp/work", "--logs-dir", "/tmp/logs"]  # noqa: S108
    words += ["--register-unsafely-without-email", "--keep-until-expiring", "--cert-name", LINEAGE]
    # The same key again, so that a TLSA record in DNS stays right
    words += ["--key-type", "ecdsa", "--reuse-key", "--max-log-backups", "0"]
    # All of them: the names were changed on purpose, if they were.
    words += ["--renew-with-new-domains"]
    if not want.authenticator:
        words += ["--webroot", "--webroot-path", str(CHALLENGE)]
    for name in want.order:
        words += ["--ip-address" if is_address(name) else "--domain", name]
    if any(map(is_address, want.order)):
        # The only profile in which Let's Encrypt certifies addresses
        words += ["--preferred-profile", "shortlived"]
    return words


def run_certbot(want: Wanted) -> tuple[int, str]:
    """Run certbot; return its exit code and what it printed."""
    environment = {**os.environ, "PATH": "/venv/bin:/usr/bin:/bin"}
    if CA_BUNDLE.is_file() and CA_BUNDLE.stat().st_size:
        environment["REQUESTS_CA_BUNDLE"] = str(CA_BUNDLE)
    try:
        done = subprocess.run(
            certbot(want),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            timeout=CERTBOT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return 1, f"the CA did not finish within {CERTBOT_SECONDS} s"
    return done.returncode, done.stdout


def reason(output: str) -> str:
    """Return what matters of certbot's output on a failure: what the CA said of each name, or certbot's last words."""
    found = re.findall(r"^ *(?:Identifier|Domain): (.*)\n *Type: +(.*)\n *Detail: (.*)", output, re.MULTILINE)
    if found:
        return "; ".join(f"{name}: {detail}" for name, _, detail in found)
    boring = re.compile(
        r"Saving debug log|Ask for help|See the logfile|Requesting a cert|Renewing an|Account regist|- -|$"
    )
    lines = [line.strip() for line in output.splitlines() if not boring.match(line.strip())]
    return " ".join(lines[-4:])[-600:] or "certbot said nothing"


def pause(failures: int, message: str, now: float) -> float:
    """Return when to try again after so many failures in a row: no earlier than the CA asks."""
    seconds = PAUSES[min(failures, len(PAUSES)) - 1]
    again = now + seconds * random.uniform(1, 1.1)  # noqa: S311 - so that not everyone comes at once
    for asked in re.findall(r"retry after (\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)", message):
        again = max(again, datetime.fromisoformat(asked).replace(tzinfo=UTC).timestamp())
    return again


def order(want: Wanted, now: float, run: Callable[[Wanted], tuple[int, str]] = run_certbot) -> State:
    """Get the certificate, or renew it if it is time, and serve it. Returns the new state."""
    before = remembered()
    failures = before.failures if before.asked == want.asked else 0
    # Written before the CA is asked: if this container dies now, its next start does not ask again at once.
    attempt = State(want.asked, failures + 1, "did not finish", last=now)
    remember(replace(attempt, next=pause(attempt.failures, "", now)))
    code, output = run(want)
    if code == 0:
        try:
            new = of_the_ca()
            # Its dates are not looked at: if they are wrong by our clock, the clock is (make doctor looks at that).
            if missing := new.lacks(want.order):
                raise Refused(f"the CA's certificate is not for {', '.join(missing)}")
            if is_other(new):
                publish(new)
            later = now + EVERY * random.uniform(0.5, 1)  # noqa: S311
            return remember(State(want.asked, last=now, next=later))
        except Refused as problem:
            output = str(problem)
    message = reason(output)
    failed = remember(replace(attempt, error=message, next=pause(attempt.failures, message, now)))
    own = "Your own stays. It is not asked for again by itself: when you have fixed that, make certificate"
    say(f"no certificate: {message}. {own if serves_own() else f'Next try {clock(failed.next)}'}")
    return failed


def serves_own() -> bool:
    """Return whether the owner's certificate is served."""
    with contextlib.suppress(Refused):
        return served().kind == OWN
    return False


def is_other(new: Served) -> bool:
    """Return whether something else than this is served."""
    with contextlib.suppress(Refused):
        return served() != new
    return True


def tick(now: float) -> None:
    """Do what is due."""
    with alone():
        want = current_wish()
        provide(want, now)
        note_health()
        if is_due(served().kind, remembered(), want, now):
            order(want, now)
            note_health()


def current_wish() -> Wanted:
    """Return what the environment and certbot.ini ask for."""
    return wanted(os.environ["CERTIFICATE_NAMES"], OPTIONS.read_text())


def note_health() -> None:
    """Note for the health check that the loop is alive and that nginx can serve something."""
    HEALTH.write_text(f"serving {', '.join(served().names())}\n")


def loop() -> None:
    """Do what is due, again and again. A problem is logged once, and never ends the loop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logged = ""
    while True:
        try:
            tick(time.time())
            logged = ""
        except (Refused, OSError) as problem:
            if str(problem) != logged:
                say(logged := str(problem))
        time.sleep(TICK_SECONDS)


# --- The verbs


def now_() -> int:
    """Order now. Returns the exit code."""
    with alone():
        want = current_wish()
        if not want.order:
            print(f"Nothing was ordered: {want.refused}")
            return 1
        print(f"Asking for a certificate for {', '.join(want.order)}", flush=True)
        state = order(want, time.time())
        if state.error:
            return 1
        print(f"Served until {served().leaf.not_valid_after_utc:%F %T} UTC")
    return 0


def install(pem: bytes, now: float) -> int:
    """Serve the owner's chain and key from now on. Returns the exit code."""
    want = current_wish()
    new = replace(read(pem), kind=OWN)
    life = new.share_of_life(now)
    if not 0 <= life < 1:
        raise Refused(
            f"the certificate is {'not valid before' if life < 0 else 'expired since'} "
            f"{new.leaf.not_valid_before_utc if life < 0 else new.leaf.not_valid_after_utc:%F %T} UTC"
        )
    names = expected(OWN, want)
    uncovered = new.lacks(names)
    if uncovered and len(uncovered) == len(names):
        raise Refused(f"the certificate is for {', '.join(new.names())}, none of which is in DJANGO_ALLOWED_HOSTS")
    with alone():
        publish(new)
    if uncovered:
        print(f"It is not for {', '.join(uncovered)}: browsers warn there")
    print("Nothing is ordered or renewed any more. Back to a CA: make certificate")
    return 0


def account_uri() -> str:
    """Return the address of the account at the CA, nothing if there is none or its file is broken."""
    files = sorted(KEPT.glob("accounts/**/regr.json"), key=lambda file: file.stat().st_mtime)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError):
        return str(json.loads(files[-1].read_text())["uri"])
    return ""


def status() -> dict[str, object]:
    """Return what is served, and what comes next."""
    want, state = current_wish(), remembered()
    found: dict[str, object] = {**asdict(state), "wanted": list(want.names), "refused": want.refused}
    # The names for which a CA asks here, over http
    found["asks"] = [] if want.authenticator else list(want.order)
    if account := account_uri():
        found["account"] = account
    try:
        current = served()
    except Refused as problem:
        return {**found, "problem": str(problem)}
    begins, ends = current.leaf.not_valid_before_utc.timestamp(), current.leaf.not_valid_after_utc.timestamp()
    # certbot's own rule; a CA may ask for another time (ARI).
    share = 2 / 3 if ends - begins > 10 * DAY else 1 / 2
    return {
        **found,
        "kind": current.kind,
        "names": current.names(),
        "missing": current.lacks(expected(current.kind, want)),
        "begins": begins,
        "until": ends,
        "renews": begins + (ends - begins) * share,
        "key": current.kind_of_key(),
        "sha256": current.leaf.fingerprint(hashes.SHA256()).hex(),
    }


def expected(kind: str, want: Wanted) -> tuple[str, ...]:
    """Return the names that a certificate of this kind can be for."""
    return want.order if kind == FROM_CA else tuple(name for name in want.names if not LOOPBACK.fullmatch(name))


def clock(moment: float) -> str:
    """Return a moment as text."""
    return f"{datetime.fromtimestamp(moment, UTC):%F %H:%M} UTC"


def say(text: str) -> None:
    """Log a line."""
    print(f"certificates: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Run the loop or one verb."""
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        if verb == "now":
            return now_()
        if verb == "install":
            return install(sys.stdin.buffer.read(), time.time())
        if verb == "status":
            print(json.dumps(status()))
        elif verb:
            print(__doc__)
            return 2
        else:
            loop()
    except Refused as refused:
        print(f"Nothing was changed: {refused}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
