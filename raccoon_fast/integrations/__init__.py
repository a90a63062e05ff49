"""Sinks for data engines, each with a separate extra: the engine schedules, retries and scales, a Producer delivers."""
