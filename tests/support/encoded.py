"""Events as EncodedRows, for tests of what takes them."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence

from raccoon_fast.core.columns import Slices
from raccoon_fast.producers.encoded_rows import EncodedRows, Run


def encoded(events: Sequence[tuple[str, bytes]]) -> EncodedRows:
    """The same events, in one buffer."""
    ends = [*itertools.accumulate((len(data) for _, data in events), initial=0)]
    slices = Slices(b"".join(data for _, data in events), array("q", ends), 0, len(events), 8)
    return EncodedRows([Run([event_type for event_type, _ in events], slices)])
