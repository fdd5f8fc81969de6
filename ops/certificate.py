"""`make certificate`, and what `make status` and `make doctor` say of the certificate that nginx serves."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import socket
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ops import front_page, preflight, stack, state
from ops.console import ROOT, Stop, quiet, run
from ops.stop import own_files

PROGRAM = "certificates.py"
# certbot may take 300 s (certificates/certificates.py), and the loop may be at it already.
SECONDS = 660
# What the client reports, if it has a certificate
FIELDS = "kind error next refused wanted asks names missing begins until renews key sha256"
MISSING = "Nothing here serves https. Add overrides/tls.yaml to COMPOSE_FILE in .env, then: make up"


def certificate(chain: str, key: str) -> None:
    """Get a certificate from the CA now, or serve the owner's chain and key. Raises Stop with the reason if not."""
    given = text_of(chain, "CERT") + "\n" + text_of(key, "KEY") if chain or key else ""
    with own_files("certificate"):
        running = [container for container in stack.containers(stack.CERTIFICATES) if container.running]
        if not running:
            raise Stop(MISSING)
        verb = "install" if given else "now"
        command = ["docker", "exec", "--interactive", running[0].id, PROGRAM, verb]
        result = run(command, SECONDS, text=given, merged=True)
    if result.returncode != 0:
        raise Stop(result.stdout.strip())
    print(result.stdout.strip())


def text_of(name: str, setting: str) -> str:
    """Return what is in a file that was named. Raises Stop if none was, or it cannot be read as text."""
    if not name:
        raise Stop("A certificate needs its key: make certificate CERT=fullchain.pem KEY=privkey.pem")
    try:
        return (ROOT / Path(name).expanduser()).read_text(encoding="ascii", errors="strict")
    except UnicodeError as problem:
        raise Stop(
            f"{setting}={name} is not in PEM format. openssl x509 -inform der -in {name} -out new.pem"
        ) from problem
    except OSError as problem:
        raise Stop(f"{setting}={name} cannot be read: {problem}") from problem


def status() -> dict[str, Any] | None:
    """Return what the client knows; nothing without overrides/tls.yaml, a problem if the client does not answer."""
    containers = stack.containers(stack.CERTIFICATES)
    if not containers:
        return None
    try:
        found = json.loads(quiet(["docker", "exec", containers[0].id, PROGRAM, "status"]) or "")
    except ValueError:
        return {"problem": "the container does not answer. Look at: make logs S=certificates"}
    if "problem" not in found and set(FIELDS.split()) - found.keys():
        return {"problem": "the container is of another version. Type: make up"}
    return dict(found)


def line(found: Mapping[str, Any], now: float) -> str:
    """Return in a line what is served and what comes next."""
    if problem := found.get("problem"):
        return str(problem)
    days = (found["until"] - now) / 86400
    until = f"until {day(found['until'])} ({days:.0f} d)" if days > 0 else f"EXPIRED {day(found['until'])}"
    kind = "from the CA" if found["kind"] == "ca" else found["kind"]
    parts = [", ".join(found["names"]), kind, until, f"key {found['key']}"]
    if found["kind"] == "ca":
        parts.append(f"renews about {day(found['renews'])}")
        parts.append(f"account {found['account']}" if "account" in found else "")
    if found["kind"] != "own":
        parts.append(waits_for(found))
    return "  ".join(filter(None, parts))


def waits_for(found: Mapping[str, Any]) -> str:
    """Return why nothing newer is served, in the CA's words, and when it is asked again; nothing if all is well."""
    if found["error"]:
        return f"{found['error']}; next try {day(found['next'])} (now: make certificate)"
    return str(found["refused"])


def problems(found: Mapping[str, Any], now: float) -> Iterator[str]:
    """Return what is wrong with it, each with its fix."""
    if problem := found.get("problem"):
        yield f"certificate: {problem}"
        return
    fix = "make certificate CERT=... KEY=..." if found["kind"] == "own" else "make certificate"
    if found["missing"] and found["kind"] != "self-signed":
        yield f"the certificate is not for {', '.join(found['missing'])}: {fix}"
    if found["kind"] != "own" and found["error"]:
        yield f"no new certificate: {waits_for(found)}"
    if found["until"] - now < (found["until"] - found["begins"]) / 6:
        yield f"the certificate ends {day(found['until'])}: {fix}"


def look(now: float) -> list[str]:
    """Return all that is wrong with the certificate; nothing without overrides/tls.yaml."""
    found = status()
    if found is None:
        return []
    config = stack.config(state.current_files())
    entrance = stack.entrance(config)
    problems_ = list(problems(found, now))
    if "problem" not in found:
        places = preflight.bound(entrance, config["services"][entrance])
        problems_ += unreachable(found, dict(places)["HTTP_PORT"])
        problems_ += served_otherwise(found, stack.published(config, entrance))
    return problems_


def unreachable(found: Mapping[str, Any], place: tuple[str, int]) -> Iterator[str]:
    """Return why a CA that has not certified the names cannot ask at this address and port, as far as we can tell."""
    address, port = place
    if found["kind"] == "own" or not (found["error"] or found["kind"] == "self-signed"):
        return
    names = [name for name in found["asks"] if not is_address(name)]
    if not found["asks"]:
        return
    if port != 80:
        yield f"a CA asks on port 80, and http is on {port} here. In .env: HTTP_PORT=80, HTTPS_PORT=443; then make up"
    if is_address(address) and ipaddress.ip_address(address).is_loopback:
        yield f"no CA can reach {address}. In .env: HTTP_ADDRESS=0.0.0.0, then make up"
    elif ":" not in address:
        for name in names:
            if ipv6 := addresses(name, socket.AF_INET6):
                yield f"a CA asks {name} at {ipv6[0]} first, and this is open on IPv4 only: remove the AAAA record"


def is_address(name: str) -> bool:
    """Return whether a name is an IP address."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False


def addresses(name: str, family: socket.AddressFamily) -> list[str]:
    """Return the addresses of a name, none if it has none or DNS does not answer."""
    with contextlib.suppress(OSError):
        return [str(found[4][0]) for found in socket.getaddrinfo(name, None, family, socket.SOCK_STREAM)]
    return []


def served_otherwise(found: Mapping[str, Any], place: str) -> Iterator[str]:
    """Return the names for which nginx, at this address and port, does not serve the certificate that is on disk."""
    address, _, port = place.rpartition(":")
    for name in found["wanted"]:
        if name.startswith("*"):
            continue
        try:
            with front_page.over_tls(address.strip("[]"), int(port), name) as connection:
                certificate_ = connection.getpeercert(binary_form=True) or b""
        except OSError as problem:
            yield f"https for {name} at {place} fails ({problem}). Look at: make logs S=nginx, make logs S=certificates"
            continue
        if hashlib.sha256(certificate_).hexdigest() != found["sha256"]:
            yield f"for {name} nginx does not serve the certificate that is on disk: make restart S=nginx"


def day(moment: float) -> str:
    """Return a moment as text."""
    return f"{datetime.fromtimestamp(moment, UTC):%F %H:%M} UTC"
