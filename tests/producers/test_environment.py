"""Options from environment variables: conversion, precedence, and the names in errors."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import subprocess
import sys

import pytest
import trustme

from raccoon_fast import RAW, TLS, AsyncProducer, Producer, StatsD
from raccoon_fast.clients.options import ClientOptions
from raccoon_fast.collector import Collector
from raccoon_fast.producers.environment import _VARIABLES, CONNECTION_OPTIONS, Environment, unknown_variables

QUIET = {"serializer": RAW, "logger": None}


class Recorder:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, msg: str, *args: object) -> None:
        self.lines.append(msg % args if args else msg)

    error = info


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    """Sets variables, after those of the test run are gone."""
    for name in [name for name in os.environ if name.startswith("RACCOON_FAST_") and name[13:] in _VARIABLES]:
        monkeypatch.delenv(name)

    def set_all(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(f"RACCOON_FAST_{name}", value)

    return set_all


def test_each_is_an_option_and_documented():
    options = {*inspect.signature(Producer).parameters, *ClientOptions.__annotations__}
    assert {path.partition(".")[0] for path, _ in _VARIABLES.values()} <= options
    assert set(CONNECTION_OPTIONS) <= options
    table = [line.split("|")[1] for line in Producer.from_env.__doc__.splitlines() if line.strip().startswith("|")]
    assert set(re.findall("[A-Z_]{3,}", " ".join(table[2:]))) == set(_VARIABLES)


def test_all_of_them(variables, tmp_path):
    authority = trustme.CA()
    for name, content in (
        ("ca", authority.cert_pem),
        ("cert", authority.issue_cert("a.test").private_key_and_cert_chain_pem),
    ):
        content.write_to_path(tmp_path / name)
    variables(
        URL="wss://a.test, https://b.test/path ,",
        USER_ID="me",
        GROUP="us",
        ID_HEADER="X-Id",
        GROUP_HEADER="X-Gr",
        TLS_CA=str(tmp_path / "ca"),
        TLS_CERT=str(tmp_path / "cert"),
        TLS_KEY=str(tmp_path / "cert"),
        TLS_PASSWORD="pass",
        AUTH_TOKEN="secret",
        TIMEOUT="7.5",
        CONNECT_TIMEOUT="3",
        WIRE="json",
        LINGER="0.25",
        BATCH_EVENTS="7",
        BATCH_BYTES="1000",
        MAX_IN_FLIGHT="3",
        CONNECTIONS="2",
        BUFFER_BYTES="100000",
        OVERFLOW="spool",
        BLOCK_TIMEOUT="1",
        DELIVERY_TIMEOUT="9",
        SERVER_ACKS="published",
        SPOOL=str(tmp_path / "spool"),
        SPOOL_BYTES="12345",
        DURABLE="Yes",
        ENABLED="on",
        LANES='{"page": {"priority": "low", "ttl": 30, "sample": 0.5}}',
        PROPAGATE="1",
        SPANS="1",
        PROXY="http://proxy.test:3128",
        SERVER_HOSTNAME="inner.test",
        STATSD_HOST="127.0.0.1",
        STATSD_PORT="9",
        STATSD_PREFIX="shop",
        STATSD_TAGS="env:test, zone:a",
    )
    producer = Producer.from_env(**QUIET)
    options = producer._options
    assert [str(settings.link.address) for _, settings in options.servers] == [
        "wss://a.test/api/v1/events",
        "https://b.test/path",
    ]
    settings = options.settings
    assert settings.link.identity.headers() == {"X-Id": "me", "X-Gr": "us"}
    assert settings.link.tls == TLS(str(tmp_path / "ca"), str(tmp_path / "cert"), str(tmp_path / "cert"), "pass")
    assert settings.link.authorization() == "Bearer secret"
    assert (str(settings.link.proxy), settings.link.server_hostname) == ("http://proxy.test:3128", "inner.test")
    assert (settings.timeout_s, settings.link.connect_timeout_s) == (7.5, 3.0)
    assert (options.wire, options.linger_s, options.batch_events, options.batch_bytes) == ("json", 0.25, 7, 1000)
    assert (options.max_in_flight, options.connections, options.buffer_bytes) == (3, 2, 100_000)
    assert (options.overflow, options.block_timeout_s, options.delivery_timeout_s) == ("spool", 1.0, 9.0)
    assert (options.server_acks, options.spool, options.spool_bytes) == ("published", tmp_path / "spool", 12345)
    assert options.durable is True
    assert options.is_null is False
    assert settings.tracing is not None
    assert (settings.tracing._tracer is None, settings.tracing._propagator is None) == (False, False)
    assert [(lane.name, lane.rank, lane.ttl_s, lane.sample) for lane in producer._lanes] == [
        ("default", 1, None, 1.0),
        ("page", 2, 30.0, 0.5),
    ]
    assert isinstance(settings.stats, StatsD)
    assert (settings.stats._prefix, settings.stats._suffix) == ("shop", "|#env:test,zone:a")
    producer.close(0)


def test_lanes_need_no_json_library(variables):
    variables(URL="http://a.test", LANES='{"page": {"ttl": 30}}')
    program = """
import sys
sys.modules.update(orjson=None, msgspec=None)
from raccoon_fast import Producer
with Producer.from_env(logger=None) as producer:
    print(*(lane.name for lane in producer._lanes))
"""
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "default page\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("page=low", "must be a JSON object such as"),
        ("[1]", r"must be a JSON object such as .* not '\[1\]'"),
        ('{"page": "low"}', "must be a JSON object such as"),
        ('{"page": {"speed": 1}}', "names an unknown option of the lane 'page': 'speed'"),
        ('{"page": {"on_delivery": null}}', "names an unknown option of the lane 'page': 'on_delivery'"),
        ('{"page": {"priority": "urgent"}}', "of the lane 'page': priority must be one of"),
        ('{"default": {}}', "'default' is the lane of all other events"),
    ],
)
def test_invalid_lanes(variables, text, message):
    variables(URL="http://a.test", LANES=text)
    with pytest.raises(ValueError, match=rf"^RACCOON_FAST_LANES:? .*{message}"):
        Producer.from_env(**QUIET)


def test_events_go_where_the_variable_says(variables):
    with Collector() as collector:
        variables(URL=collector.url)
        with Producer.from_env(**QUIET) as producer:
            producer.emit("a", b"1")
        variables(URL=collector.ws_url)

        async def emit() -> None:
            async with AsyncProducer.from_env(**QUIET) as producer:
                await producer.emit("b", b"2")

        asyncio.run(emit())
        collector.wait_for(2)
        assert [(event.type, event.protocol) for event in collector.events] == [("a", "rest"), ("b", "websocket")]


def test_arguments_override_variables_and_those_are_not_read(variables):
    variables(URL="ftp://x", LINGER="soon", TLS_CA="/no/such/file", STATSD_PORT="x", DURABLE="perhaps", SPOOL="")
    producer = Producer.from_env(url="ws://127.0.0.1:1", linger=0.5, tls=None, stats=None, durable=False, **QUIET)
    assert producer._options.linger_s == 0.5
    assert producer._options.spool is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "RACCOON_FAST_URL is not set, and no url is given"),
        ({"URL": " , "}, "RACCOON_FAST_URL"),
        ({"URL": "ftp://a"}, "RACCOON_FAST_URL: url must start with one of"),
        ({"LINGER": "soon"}, "RACCOON_FAST_LINGER must be a number of seconds, not 'soon'"),
        ({"LINGER": "-1"}, "RACCOON_FAST_LINGER: linger must be above 0"),
        ({"LINGER": "nan"}, "RACCOON_FAST_LINGER: linger must be above 0"),
        ({"TIMEOUT": "0"}, "RACCOON_FAST_TIMEOUT: timeout must be above 0"),
        ({"CONNECT_TIMEOUT": "0"}, "^RACCOON_FAST_CONNECT_TIMEOUT: connect_timeout must be above 0"),
        ({"BATCH_EVENTS": "1.5"}, "RACCOON_FAST_BATCH_EVENTS must be a whole number, not '1.5'"),
        ({"BATCH_EVENTS": "-3"}, "RACCOON_FAST_BATCH_EVENTS: batch_events must be 1 or more, not -3"),
        ({"BUFFER_BYTES": "5"}, "RACCOON_FAST_BUFFER_BYTES: buffer_bytes must hold two batches"),
        ({"OVERFLOW": "explode"}, "RACCOON_FAST_OVERFLOW: overflow must be one of block, raise"),
        ({"WIRE": "xml"}, 'RACCOON_FAST_WIRE: wire must be "proto" or "json"'),
        ({"DURABLE": "perhaps"}, "RACCOON_FAST_DURABLE must be 1 or 0, true or false"),
        ({"DURABLE": "1"}, "RACCOON_FAST_DURABLE: durable=True needs spool="),
        ({"SPOOL": "/no/such/directory/spool"}, "RACCOON_FAST_SPOOL: spool must be a file in an existing directory"),
        ({"TLS_CA": "/no/such/file"}, "RACCOON_FAST_TLS_CA must be a file that exists, not '/no/such/file'"),
        ({"TLS_CA": __file__}, "RACCOON_FAST_TLS_CA: tls is given, but ws://127.0.0.1:1/api/v1/events is plain text"),
        ({"TLS_KEY": __file__}, "RACCOON_FAST_TLS_KEY: tls needs .*set RACCOON_FAST_TLS_CERT too"),
        ({"TLS_PASSWORD": "hush"}, "RACCOON_FAST_TLS_PASSWORD: tls needs .*set RACCOON_FAST_TLS_KEY too"),
        ({"USER_ID": "é"}, "RACCOON_FAST_USER_ID: user_id: the value cannot be sent in a header"),
        ({"ID_HEADER": "a b"}, "RACCOON_FAST_ID_HEADER: id_header: 'a b' is not a header name"),
        ({"AUTH_TOKEN": "hush\n"}, "RACCOON_FAST_AUTH_TOKEN: auth: the value cannot be"),
        ({"STATSD_PORT": "8125"}, "RACCOON_FAST_STATSD_PORT: stats need RACCOON_FAST_STATSD_HOST too"),
        ({"STATSD_HOST": "a", "STATSD_PORT": "0"}, "RACCOON_FAST_STATSD_PORT: stats: port must be from 1 to 65535"),
        ({"STATSD_HOST": "a", "STATSD_TAGS": "env=test"}, "RACCOON_FAST_STATSD_TAGS must be key:value"),
        ({"STATSD_HOST": "a", "STATSD_TAGS": "a:b c"}, "RACCOON_FAST_STATSD_TAGS: stats: tags must be letters"),
    ],
)
def test_an_error_names_the_variable(variables, values, message):
    variables(**values)
    url = {} if not values or "URL" in values else {"url": "ws://127.0.0.1:1"}
    with pytest.raises(ValueError, match=message) as caught:
        Producer.from_env(**url, **QUIET)
    assert "hush" not in str(caught.value)


def test_an_error_of_an_argument_names_no_variable(variables):
    variables(URL="ws://127.0.0.1:1", LINGER="1")
    with pytest.raises(ValueError, match=r"^batch_events must be"):
        Producer.from_env(batch_events=0, **QUIET)
    with pytest.raises(TypeError, match=r"^unknown option 'lingr'"):
        Producer.from_env(lingr=0, **QUIET)


def test_unknown_variables_cause_a_warning(variables):
    variables(URL="ws://127.0.0.1:1", LINGR="1", NO_EXTENSIONS="", BUILD="auto", XYZZY="1")
    log = Recorder()
    Producer.from_env(serializer=RAW, logger=log)
    assert sorted(log.lines) == [
        "RACCOON_FAST_LINGR is not a variable of raccoon_fast; did you mean RACCOON_FAST_LINGER?",
        "RACCOON_FAST_XYZZY is not a variable of raccoon_fast",
    ]
    assert unknown_variables({"RACCOON_URL": "x", "PATH": "y"}) == []


def test_an_empty_variable_is_not_set():
    assert Environment((), None, {"RACCOON_FAST_LINGER": "", "RACCOON_FAST_GROUP": ""}).options == {}


def test_only_wanted_variables_are_read():
    found = Environment((), ("group",), {"RACCOON_FAST_LINGER": "x", "RACCOON_FAST_GROUP": "us"})
    assert found.options == {"group": "us"}


@pytest.mark.parametrize(("text", "value"), [("1", True), ("on", True), ("TRUE", True), ("0", False), ("off", False)])
def test_switches(text, value):
    assert Environment((), None, {"RACCOON_FAST_DURABLE": text}).options == {"durable": value}
