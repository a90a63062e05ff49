"""`inspect.signature` and `help()` show compiled methods like pure ones."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Iterator
from typing import Any

import pytest

from raccoon_fast import RAW, Producer, has_extensions
from raccoon_fast.core import acks, answers, batch, columns, envelope, event_types, wire

MODULES = [acks, answers, batch, columns, envelope, event_types, wire]


def methods() -> Iterator[tuple[str, Any]]:
    for module in MODULES:
        for name in module.__all__:
            one = getattr(module, name)
            if not isinstance(one, type):
                yield f"{module.__name__}.{name}", one
                continue
            for key, value in vars(one).items():
                if not key.startswith("_") and callable(value):
                    yield f"{module.__name__}.{name}.{key}", value


@pytest.mark.parametrize(("name", "method"), [pytest.param(*one, id=one[0]) for one in methods() if callable(one[1])])
def test_each_has_a_signature_and_a_docstring(name, method):
    parameters = inspect.signature(method).parameters
    assert "args" not in parameters
    assert (inspect.getdoc(method) or "").strip(), name


@pytest.mark.skipif(not has_extensions(), reason="there is one form")
@pytest.mark.parametrize("name", ["emit", "emit_many", "emit_some", "add_batch"])
def test_both_forms_say_the_same(name):
    from raccoon_fast.core import _batch_c, _batch_py

    compiled, pure = getattr(_batch_c.Accumulator, name), getattr(_batch_py.Accumulator, name)
    assert inspect.getdoc(compiled) == inspect.getdoc(pure)
    assert [*inspect.signature(compiled).parameters] == [*inspect.signature(pure).parameters]


def test_a_producer_s_shortcuts_look_as_its_methods_do():
    producer = Producer("http://127.0.0.1:9", serializer=RAW)
    for name in ("emit", "emit_many"):
        shortcut, method = getattr(producer, name), getattr(Producer, name)
        assert [*inspect.signature(shortcut).parameters] == [*inspect.signature(method).parameters][1:]
        assert inspect.getdoc(shortcut).startswith("Accept ")
    assert inspect.isbuiltin(producer.emit) is has_extensions()
    shown = pydoc.plain(pydoc.render_doc(producer.emit))
    assert "emit(type" in shown
    assert "Accept one event." in shown


@pytest.mark.parametrize(
    "method", ["emit", "emit_many", "emit_table", "emit_batch", "flush", "close", "stats", "health", "acks"]
)
def test_a_producer_s_methods_are_fully_documented(method):
    shown = pydoc.plain(pydoc.render_doc(getattr(Producer, method)))
    assert method in shown
    assert len(shown.splitlines()) > 3
