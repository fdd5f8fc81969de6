"""Build the images, showing the steps that take time and, if it fails, only the reason."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence

from bootstrap.console import ROOT, Stop
from ops.stack import compose_command

STEP = re.compile(r"#(\d+) \[(.+?)\] (RUN .+)")
LINE = re.compile(r"#(\d+) (.*)")
SHOWN = 100


def build(files: Sequence[str]) -> None:
    """Build what these files need. Raises Stop with the failing step's last lines."""
    running = subprocess.Popen(
        compose_command(files, "--progress", "plain", "build"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )
    assert running.stdout is not None
    lines = list(relay(running.stdout))
    if running.wait() != 0:
        raise Stop(f"{reason(lines)}\n\nAn image did not build (above). What was running runs on; nothing was changed.")


def relay(output: Iterable[str]) -> Iterable[str]:
    """Pass every line on, and print the title of each RUN step that is not answered from the cache."""
    titles: dict[str, str] = {}
    for line in output:
        yield line.rstrip("\n")
        if title := STEP.match(line):
            titles[title[1]] = f"  [{title[2]}] {' '.join(title[3].split())}"[:SHOWN]
        elif (rest := LINE.match(line)) and rest[1] in titles:
            shown = titles.pop(rest[1])
            if rest[2] != "CACHED":
                print(shown, flush=True)


def reason(lines: Sequence[str]) -> str:
    """Return the lines that say why a build failed: those marked as errors, else the last ones."""
    errors = [
        re.sub(r"^#\d+ [\d.]+ ", "", line)
        for line in lines
        if re.match(r"(#\d+ [\d.]+ )?(ERROR|E:|error:|\w*Error:)", line) and "failed to solve" not in line
    ]
    return "\n".join(dict.fromkeys(errors[-6:])) or "\n".join(lines[-12:])
