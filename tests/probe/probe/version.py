"""What a test changes to make another release."""

VERSION = "first"
