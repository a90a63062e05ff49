"""The options of a sink."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from raccoon_fast.integrations.options import SinkOptions
from raccoon_fast.tables.columns import Columns

COLUMNS = Columns("a")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"url": "ftp://h"}, ValueError, "url must start with one of"),
        ({"durable": True}, TypeError, "durable is not an option of a sink: the engine keeps the data"),
        ({"linger": 1}, TypeError, "linger is not an option of a sink"),
        ({"user_id": "me"}, TypeError, "user_id is not an option of a sink: each worker has its own connection"),
        ({"batch_event": 1}, TypeError, "batch_event"),
        ({"batch_events": 0}, ValueError, "batch_events must be 1 or more"),
        ({"batch_bytes": 1 << 24}, ValueError, "buffer_bytes must hold two batches"),
        ({"delivery_timeout": 0}, ValueError, "delivery_timeout must be above 0"),
        ({"delivery_timeout": "5"}, TypeError, "delivery_timeout takes a number"),
        ({"max_events_per_second": 5}, ValueError, "max_events_per_second needs parallelism"),
        ({"max_events_per_second": "5", "parallelism": 1}, TypeError, "max_events_per_second takes a number"),
        ({"max_events_per_second": 0, "parallelism": 1}, ValueError, "max_events_per_second must be above 0"),
        ({"max_events_per_second": 5, "parallelism": 0}, ValueError, "parallelism must be 1 or more"),
        ({"parallelism": 0}, ValueError, "parallelism must be 1 or more"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SinkOptions(**{"url": "ws://h", "columns": COLUMNS, "key": None, **options})


def test_options_can_be_pickled_and_show_no_secret() -> None:
    options = SinkOptions("ws://h", COLUMNS, ("k",), auth="s3cret", headers={"x-key": "s3cret"})
    again = pickle.loads(pickle.dumps(options))
    assert again.key == ("k",)
    assert again.new_producer().stats().total.accepted == 0
    assert "s3cret" not in f"{options!r}{again.shape}"


def test_a_rate_is_shared_out_and_bounds_a_batch() -> None:
    options = SinkOptions("ws://h", COLUMNS, None, max_events_per_second=1000, parallelism=4)
    assert (options.worker_rate, options.batch_events) == (250, 250)
    assert SinkOptions("ws://h", COLUMNS, None, max_events_per_second=1, parallelism=10).batch_events == 1
    assert SinkOptions("ws://h", COLUMNS, None, parallelism=10).worker_rate is None
