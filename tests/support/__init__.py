"""Code that tests, faults, fuzz and bench share: clients, server processes, databases and deadlines."""
