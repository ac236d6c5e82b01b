"""Redis: counters, quotas, tickets, attempts, and publish and subscribe between processes."""
