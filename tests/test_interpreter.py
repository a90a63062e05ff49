"""A subinterpreter gets one clear ImportError, and the main interpreter works afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULE = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
INSIDE = """
import sys
sys.path[:] = {path!r}
for _ in range(2):
    try:
        import raccoon_fast
    except ImportError as error:
        print(error)
    print({{"raccoon_fast.core", "orjson", "msgspec", "uvloop", "httptools"}} & {{*sys.modules}}, flush=True)
"""
MAIN = """
import sys, {module} as interpreters
run = getattr(interpreters, "exec", None) or interpreters.run_string
interpreter = interpreters.create()
assert run(interpreter, {inside!r}.format(path=sys.path)) is None
interpreters.destroy(interpreter)

import raccoon_fast
raccoon_fast.Producer("ws://localhost:1", logger=None).close()
print(raccoon_fast.IMPLEMENTATION, raccoon_fast.has_extensions(raise_=raccoon_fast.has_extensions()))
"""


def test_a_subinterpreter_is_refused_and_spoils_nothing():
    pytest.importorskip(MODULE)
    script = MAIN.format(module=MODULE, inside=INSIDE)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    first, loaded, again, still, main = run.stdout.splitlines()
    assert first == again
    assert first.startswith("raccoon_fast cannot be used in a subinterpreter, since ")
    assert first.endswith("; use threads or processes, and under mod_wsgi set WSGIApplicationGroup %{GLOBAL}")
    assert loaded == still == "set()"
    assert main in ("compiled True", "pure False")
