"""Gives named tuples the signature of their constructor in the reference, as dataclasses have one."""

from __future__ import annotations

from typing import Any

from griffe import Attribute, Class, Extension, Function, Parameter, ParameterKind, Parameters


class NamedTuples(Extension):
    """Adds the `__init__` that typing.NamedTuple makes: one parameter for each field, in their order."""

    def on_class_members(self, *, cls: Class, **_: Any) -> None:  # noqa: D102 - griffe's
        if "NamedTuple" not in map(str, cls.bases):
            return
        fields = [one for one in cls.members.values() if isinstance(one, Attribute) and "property" not in one.labels]
        kind = ParameterKind.positional_or_keyword
        parameters = [
            Parameter("self", kind=kind),
            *(Parameter(one.name, annotation=one.annotation, kind=kind, default=one.value) for one in fields),
        ]
        cls.set_member("__init__", Function("__init__", parameters=Parameters(*parameters), returns="None", parent=cls))
