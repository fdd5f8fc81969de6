"""Set-up of a fresh machine: `bootstrap/run`, called by `make up` and `make test`.

With everything present it prints nothing and takes well under a second.
"""

from __future__ import annotations

import sys

from bootstrap import base_image, engine, settings
from bootstrap.console import Stop


def main() -> int:
    """Run the steps in order and return the exit code."""
    try:
        engine.ensure()
        settings.ensure()
        base_image.ensure(base_image.name())
    except Stop as stop:
        print(f"\n{stop}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
