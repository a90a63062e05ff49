"""Tables as events: anything that hands out Arrow's columns. Needs pyarrow, which is imported on first use only."""
