"""The hot path: wire format, envelopes, answers, the table of what awaits its acknowledgement.

No I/O, no clock, no thread and no randomness in here: time, guids and masking keys are arguments. Every module has a
compiled form and a pure-Python form of the same behaviour; `_implementation.py`, beside this folder, chooses one.
"""
