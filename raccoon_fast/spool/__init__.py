"""Batches on disk: the store, the thread that works on it, and a read-only view for tools."""
