"""The version, in one place: pyproject.toml takes it from here."""

__all__ = ["VERSION"]

VERSION = "0.1.0"
