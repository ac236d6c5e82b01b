"""Helpers that know nothing of chat: back-off, batching, sweeps, tasks, token buckets, write-behind."""
