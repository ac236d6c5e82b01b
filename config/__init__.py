"""The server's configuration: its settings, their sources, logging, and checks of files that settings name."""

from config.settings import Settings
from config.sources import SettingsError, load, secrets_of

__all__ = ["Settings", "SettingsError", "load", "secrets_of"]
