"""`make certificate`, and what `make status` and `make doctor` say of the certificate that nginx serves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ops import stack
from ops.console import ROOT, Stop, quiet, run
from ops.stop import own_files

PROGRAM = "certificates.py"
# certbot may take 300 s (certificates/certificates.py), and the loop may be at it already.
SECONDS = 660
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
    except (OSError, UnicodeError) as problem:
        raise Stop(f"{setting}={name} cannot be read: {problem}") from problem


def state() -> dict[str, Any] | None:
    """Return what the client knows; nothing without overrides/tls.yaml, a problem if the client does not answer."""
    containers = stack.containers(stack.CERTIFICATES)
    if not containers:
        return None
    try:
        found = json.loads(quiet(["docker", "exec", containers[0].id, PROGRAM, "status"]) or "")
    except ValueError:
        return {"problem": "the container does not answer. Look at: make logs S=certificates"}
    return dict(found)


def line(found: Mapping[str, Any], now: float) -> str:
    """Return in a line what is served and what comes next."""
    if problem := found.get("problem"):
        return str(problem)
    days = (found["until"] - now) / 86400
    until = f"until {day(found['until'])} ({days:.0f} d)" if days > 0 else f"EXPIRED {day(found['until'])}"
    parts = [", ".join(found["names"]), found["kind"], until, f"key {found['key']}"]
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
    if found["missing"] and found["kind"] != "self-signed":
        yield f"the certificate is not for {', '.join(found['missing'])}: make certificate"
    if found["kind"] != "own" and found["error"]:
        yield f"no new certificate: {waits_for(found)}"
    if found["until"] - now < (found["until"] - found["begins"]) / 6:
        fix = "make certificate CERT=... KEY=..." if found["kind"] == "own" else "make certificate"
        yield f"the certificate ends {day(found['until'])}: {fix}"


def day(moment: float) -> str:
    """Return a moment as text."""
    return f"{datetime.fromtimestamp(moment, UTC):%F %H:%M} UTC"
