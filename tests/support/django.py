"""What runs in the image with the project's Django, run here with one of its own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.stack import run

UV = Path(sys.executable).with_name("uv")


def python(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Return what Python prints in a folder, with Django installed. Fails if it fails."""
    done = run(
        *(str(UV), "run", "--quiet", "--no-project", "--with", "Django~=5.2.0", "python", *arguments),
        cwd=folder,
        environment={"PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
