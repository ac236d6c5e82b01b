"""Helpers that know nothing of chat: batching, sweeps, tasks, token buckets."""
