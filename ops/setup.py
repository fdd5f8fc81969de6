"""Set-up of a fresh machine, before every verb that builds or starts something."""

from __future__ import annotations

from ops import base_image, engine, settings


def setup() -> None:
    """Make sure of Docker, the settings, the secrets and the base image. With all there: silent, well under a second.

    Raises Stop with what to type.
    """
    engine.ensure()
    settings.ensure()
    base_image.ensure(base_image.name())
