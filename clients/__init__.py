"""A client for the terminal."""
