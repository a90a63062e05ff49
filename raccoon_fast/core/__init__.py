"""The hot path: wire format, envelopes, batches, answers and the table of pending acknowledgements.

These modules do no I/O, read no clock, start no thread and use no randomness: time, guids and masking keys are
arguments. Every module has a compiled form and a pure-Python form that behave the same. `_implementation.py`, beside
this folder, chooses one.
"""
