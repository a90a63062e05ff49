"""Sinks for data engines, each an extra of its own: the engine schedules, retries and scales, a Producer delivers."""
