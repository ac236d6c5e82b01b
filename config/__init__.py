"""Settings: what they are, where they come from, and which source wins."""

from config.settings import Settings
from config.sources import SettingsError, load, secrets_of

__all__ = ["Settings", "SettingsError", "load", "secrets_of"]
