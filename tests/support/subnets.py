"""Subnets for the networks of test stacks: Docker itself gives about thirty, and one run has that many at a time."""

from __future__ import annotations

import itertools
import json
import os
from ipaddress import IPv4Network

from ops.console import run

# RFC 2544 sets these addresses aside for tests of networks; no machine has them for anything else.
RANGE = IPv4Network("198.18.0.0/15")
PREFIX = 28
# Of the 8192 subnets, each parallel process has so many of its own: two must not choose the same at a time.
PER_PROCESS = 256
NETWORKS = ("EDGE", "INSIDE", "WIRE", "EGRESS")
NEXT = itertools.count()


def used() -> set[IPv4Network]:
    """Return the subnets that networks of this machine's engine have."""
    names = run(["docker", "network", "ls", "--quiet"], 60).stdout.split()
    # One that has gone since is left out of the answer.
    networks = json.loads(run(["docker", "network", "inspect", *names], 60).stdout or "[]")
    configs = [config for network in networks for config in network["IPAM"]["Config"] or []]
    return {IPv4Network(config["Subnet"]) for config in configs if "." in config.get("Subnet", "")}


def given_by_docker() -> int:
    """Return how many networks have a subnet that Docker chose, of which it has about thirty."""
    return sum(not subnet.subnet_of(RANGE) for subnet in used())


def choose() -> dict[str, str]:
    """Return one free subnet for each network of a stack, as the variables that tests/overrides/test.yaml reads."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    mine = list(itertools.islice(RANGE.subnets(new_prefix=PREFIX), number * PER_PROCESS, (number + 1) * PER_PROCESS))
    taken = used()
    free = (subnet for subnet in (mine[step % PER_PROCESS] for step in NEXT) if subnet not in taken)
    return {f"TEST_{name}_SUBNET": str(next(free)) for name in NETWORKS}
