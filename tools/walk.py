"""Verbs in an order that no one planned, a third of them killed: for `make prove`."""

from __future__ import annotations

import os
import random
import signal
import subprocess

from tests.support.site import Site

VERBS = (
    *("up", "up", "up", "up-tcp", "up-unix", "deploy", "deploy", "deploy", "rollback", "scale N=1", "scale N=2"),
    *("reload", "restart", "restart S=nginx", "status", "doctor"),
)
SETTINGS = {
    "DJANGO_ALLOWED_HOSTS": ("localhost,127.0.0.1,[::1]", "localhost,127.0.0.1,[::1],shop.example"),
    "NGINX_GZIP": ("on", "off"),
    "UPLOAD_MAX": ("10m", "20m"),
    "UWSGI_PROCESSES": ("4", "5"),
}
# Of verbs that do not do what is typed, and say why
REFUSALS = (
    *("There is no release before the running one", "hanged since the last `make up`", "since a change was cut off"),
    *("have changed since the last `make up` or `make deploy`", "Choose the one that is to serve"),
)
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
# Longer than most verbs take: some are killed too late, and end by themselves.
KILLED_WITHIN_SECONDS = 12
VERB_SECONDS = 280


def walk(site: Site, steps: int, seed: int) -> None:
    """Take so many steps: change the code, a setting or neither, type a verb, kill a third of them.

    Ends with `make up` over the site's own transport. Fails if a verb that was left alone does, if what was deployed
    last does not serve, or if a container of an earlier step is left.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret
    plain = dict(site.environment)
    try:
        for step in range(steps):
            if rng.random() < 0.6:
                site.change(f"step {step}")
            if rng.random() < 0.4:
                name = rng.choice([*SETTINGS])
                site.environment[name] = rng.choice(SETTINGS[name])
            killed = rng.random() < 1 / 3
            take(
                site,
                rng.choice(VERBS),
                rng.uniform(0.3, KILLED_WITHIN_SECONDS) if killed else None,
                rng.choice(SIGNALS),
            )
    finally:
        site.environment = plain
    site.change("walked")
    site.up()
    site.made("scale", "N=1")
    assert {site.version() for _ in range(10)} == {"walked"}
    left = {service: len(site.containers(service)) for service in ("nginx-socket", "nginx", "uwsgi-socket", "uwsgi")}
    assert set(left.values()) == {1}, left


def take(site: Site, verb: str, kill_after: float | None, by: signal.Signals) -> None:
    """Type a verb, and kill it and all it has started after so many seconds. Fails if one that is not killed does."""
    typed = site.under_way(*verb.split())
    try:
        output, _ = typed.communicate(timeout=kill_after or VERB_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(typed.pid, by)
        output, _ = typed.communicate(timeout=VERB_SECONDS)
    how = f"killed after {kill_after:.1f} s" if kill_after else f"ended with {typed.returncode}"
    print(f"      make {verb}: {how}", flush=True)
    refused = any(words in output for words in REFUSALS)
    assert kill_after or refused or typed.returncode == 0, f"make {verb}: {output}"
