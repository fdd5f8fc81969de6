"""What a change of the source changes."""

VERSION = "1"
