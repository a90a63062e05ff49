"""Sends tables as events: any object that exports Arrow columns. Needs pyarrow, which is imported on first use."""
