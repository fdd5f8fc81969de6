"""The processor time of containers, as their cgroups count it (v2 and v1): what noise on the clock cannot hide."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ops.console import Stop

ROOT = Path("/sys/fs/cgroup")


def counter(container: str) -> Path:
    """Return the file that counts the processor time of a running container. Raises Stop if there is none."""
    inspected = ["docker", "inspect", "--format", "{{.State.Pid}}", container]
    pid = subprocess.run(inspected, capture_output=True, text=True, check=True).stdout.strip()
    result = Path(f"/proc/{pid}/cgroup")
    text = result.read_text() if result.exists() else ""
    for pattern, place in (
        (r"^\d+:(\S*cpuacct\S*?):(/.+)$", "{0}{1}/cpuacct.usage"),
        (r"^0:():(/.+)$", "{1}/cpu.stat"),
    ):
        if found := re.search(pattern, text, re.MULTILINE):
            file = ROOT / place.format(*found.groups()).lstrip("/")
            if file.exists():
                return file
    raise Stop(f"The processor time of {container} cannot be read: this needs Linux, and Docker on this very machine.")


def seconds(file: Path) -> float:
    """Return what a counter says."""
    text = file.read_text()
    # v2 counts microseconds under names, v1 is one number of nanoseconds.
    return int(text.split()[1]) / 1e6 if text.startswith("usage_usec") else int(text) / 1e9


class Cpu:
    """The processor time of several containers, together."""

    def __init__(self, containers: Sequence[str]) -> None:
        self.files = [counter(one) for one in containers]

    def seconds(self) -> float:
        """Return how much they have used since they were started. Raises Stop if one of them is gone."""
        try:
            return sum(seconds(file) for file in self.files)
        except FileNotFoundError as gone:
            raise Stop("A container ended while it was measured (above: the last lines of each)") from gone
