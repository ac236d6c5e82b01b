"""The embedded databases: programs, processes, their data directory and their supervision."""
