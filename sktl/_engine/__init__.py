"""Frozen prefixes: the cache that keeps their output and the runners that compute it."""
