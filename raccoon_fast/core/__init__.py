"""The hot path: wire format, envelopes, answers, the table of what awaits its acknowledgement.

No I/O, no clock, no thread and no randomness in here: time, guids and masking keys are arguments. Every module has a
compiled form and a pure-Python form of the same behaviour; `IMPLEMENTATION` names the one in use.
"""

from raccoon_fast.core._implementation import IMPLEMENTATION, describe, explain_pure, has_extensions, was_switched_off

__all__ = ["IMPLEMENTATION", "describe", "explain_pure", "has_extensions", "was_switched_off"]
