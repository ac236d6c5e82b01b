"""Settings: what they are, where they come from, and which source wins."""

from config.settings import Settings, SettingsError, load

__all__ = ["Settings", "SettingsError", "load"]
