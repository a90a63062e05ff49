"""`import raccoon_fast` is cheap: a protocol's modules are loaded only when a client of it is first used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import raccoon_fast

HEAVY = [
    "asyncio",
    "google.protobuf",
    "grpc",
    "h2",
    "hpack",
    "httptools",
    "httpx",
    "logging",
    "msgspec",
    "opentelemetry",
    "orjson",
    "prometheus_client",
    "pybase64",
    "rich",
    "ssl",
    "starlette",
    "statsd",
    "uvicorn",
    "uvloop",
    "websockets",
]


def loaded_after(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, capture_output=True, text=True)
    return set(run.stdout.split())


def test_import_loads_no_protocol():
    # Against a bare interpreter: a site's .pth files may load modules of their own.
    loaded = loaded_after("import raccoon_fast") - loaded_after("")
    assert "raccoon_fast" in loaded
    assert not loaded & set(HEAVY)


def test_ground_floor_loads_no_protocol():
    floor = ["client_info", "errors", "events", "logs", "serializers", "stats", "stats.statsd"]
    floor += ["stats.opentelemetry", "stats.prometheus"]
    statement = "import " + ", ".join(f"raccoon_fast.{module}" for module in floor)
    assert not (loaded_after(statement) - loaded_after("")) & set(HEAVY)


def test_no_client_and_no_producer_needs_grpcio():
    statement = "import raccoon_fast as r; r.GrpcClient('localhost'); r.Producer('grpc://localhost')"
    assert not loaded_after(statement) & {"grpc", "google.protobuf"}


def test_client_info_stays_the_function_whatever_was_imported_first():
    loaded_after("import raccoon_fast.client_info, raccoon_fast; raccoon_fast.client_info()")
    loaded_after("import raccoon_fast; raccoon_fast.__version__; raccoon_fast.client_info()")
    loaded_after("from raccoon_fast.client_info import user_agent; from raccoon_fast import client_info; client_info()")


def test_every_public_name_exists():
    loaded_after("import raccoon_fast; [getattr(raccoon_fast, name) for name in raccoon_fast.__all__]")
    loaded_after("from raccoon_fast import *; RestClient, client_info")


def test_nuitka_finds_every_module_that_is_loaded_on_first_use():
    tree = ast.parse(Path(raccoon_fast.__file__).read_text())
    frozen = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "_frozen")
    imports = [node for node in ast.walk(frozen) if isinstance(node, ast.ImportFrom)]
    assert {f"{one.module}.{alias.name}" for one in imports for alias in one.names} == {*raccoon_fast._HOME_OF.values()}
