"""Options are checked when a client is created, and the error names the option."""

from __future__ import annotations

import ssl

import pytest

from raccoon_fast import (
    TLS,
    App,
    AsyncGrpcClient,
    AsyncProducer,
    AsyncRestClient,
    AsyncWebSocketClient,
    GrpcClient,
    Producer,
    RestClient,
    RetryPolicy,
    WebSocketClient,
)

CLIENTS = [
    (RestClient, "http://h"),
    (AsyncRestClient, "http://h"),
    (WebSocketClient, "ws://h"),
    (AsyncWebSocketClient, "ws://h"),
    (GrpcClient, "h:8081"),
    (AsyncGrpcClient, "h:8081"),
    (Producer, "ws://h"),
    (AsyncProducer, "ws://h"),
]
SECONDS = ["timeout", "connect_timeout"]
NOT_NUMBERS = ["5", None, True, [1]]
NOT_SECONDS = [0, -1, float("nan"), float("inf")]
WRONG = [
    *((option, value, TypeError) for option in SECONDS for value in NOT_NUMBERS),
    *((option, value, ValueError) for option in SECONDS for value in NOT_SECONDS),
    ("serializer", 5, TypeError),
    ("serializer", "json", TypeError),
    ("retry", 3, TypeError),
    ("logger", object(), TypeError),
    ("stats", object(), TypeError),
    ("app", "my app", TypeError),
    ("user_id", 5, TypeError),
    ("user_id", "a\r\nX-Evil: 1", ValueError),
    ("group", "a\nb", ValueError),
    ("id_header", "X User", ValueError),
    ("id_header", None, TypeError),
    ("group_header", "", ValueError),
    ("headers", [("a", "b")], TypeError),
    ("headers", {"a": 5}, TypeError),
    ("headers", {5: "a"}, TypeError),
    ("headers", {"a": "b\r\nX-Evil: 1"}, ValueError),
    ("headers", {"a\n": "b"}, ValueError),
    ("headers", {"a": "\u00e4"}, ValueError),
    ("headers", {"Content-Length": "5"}, ValueError),
    ("headers", {"User-Agent": "mine"}, ValueError),
    ("headers", {"grpc-timeout": "1S"}, ValueError),
    ("headers", {"x-user-ID": "a"}, ValueError),
    ("headers", {"Accept": "a", "accept": "b"}, ValueError),
    ("id_header", "content-length", ValueError),
    ("id_header", "X-User-Group", ValueError),
    ("group_header", "x-user-id", ValueError),
    ("group_header", "Sec-WebSocket-Key", ValueError),
    ("auth", 5, TypeError),
    ("auth", ("user",), TypeError),
    ("proxy", 5, TypeError),
    ("proxy", "proxy:3128", ValueError),
    ("proxy", "ftp://proxy:3128", ValueError),
    ("proxy", "http://", ValueError),
    ("proxy", "http://proxy:0", ValueError),
    ("proxy", "http://proxy/path", ValueError),
    ("trust_env", 1, TypeError),
    ("server_hostname", 5, TypeError),
    ("server_hostname", "inner.test", ValueError),  # of plain text
    ("tls", "cert.pem", TypeError),
    ("tls", TLS(), ValueError),
]


@pytest.mark.parametrize(("client", "url"), CLIENTS, ids=lambda one: getattr(one, "__name__", ""))
@pytest.mark.parametrize(("option", "value", "error"), WRONG)
def test_a_wrong_option_is_named(client, url, option, value, error):
    with pytest.raises(error, match=option):
        client(url, **{option: value})


@pytest.mark.parametrize(("client", "url"), CLIENTS, ids=lambda one: getattr(one, "__name__", ""))
def test_an_unknown_option_is_named_with_the_likely_one(client, url):
    with pytest.raises(TypeError, match=r"^unknown option 'time_out'; did you mean timeout\?$"):
        client(url, time_out=5)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("batch_size", "batch_events"), ("batch_event", "batch_events"), ("linger_ms", "linger"), ("token", "auth")],
)
@pytest.mark.parametrize("kind", [Producer, AsyncProducer])
def test_an_unknown_option_of_a_producer(kind, name, meant):
    with pytest.raises(TypeError, match=rf"^unknown option '{name}'; did you mean {meant}\?$"):
        kind("http://h", **{name: 5})


def test_options_of_a_producer_are_not_suggested_for_a_client():
    with pytest.raises(TypeError, match=r"^unknown option 'batch_size'$"):
        RestClient("http://h", batch_size=5)
    with pytest.raises(TypeError, match=r"^unknown option 'max_in_fligt'; did you mean max_in_flight\?$"):
        WebSocketClient("ws://h", max_in_fligt=5)


QUESTIONED = [
    ({"timeout": 0.001}, "timeout=0.001 means 1 ms, because it is in seconds; did you mean timeout=1?"),
    ({"timeout": 30000}, "timeout=30000 means 8.33 hours, because it is in seconds; did you mean timeout=30?"),
    (
        {"connect_timeout": 0.005},
        "connect_timeout=0.005 means 5 ms, because it is in seconds; did you mean connect_timeout=5?",
    ),
]
QUESTIONED_OF_A_PRODUCER = [
    ({"linger": 5000}, "linger=5000 means 83.3 minutes, because it is in seconds; did you mean linger=5?"),
    ({"linger": 100}, "linger=100 means 100 s, because it is in seconds; did you mean linger=0.1?"),
    (
        {"delivery_timeout": 0.002},
        "delivery_timeout=0.002 means 2 ms, because it is in seconds; did you mean delivery_timeout=2?",
    ),
    (
        {"pong_timeout": 10000},
        "pong_timeout=10000 means 2.78 hours, because it is in seconds; did you mean pong_timeout=10?",
    ),
]


@pytest.mark.parametrize(("options", "question"), QUESTIONED)
@pytest.mark.parametrize(("client", "url"), CLIENTS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_time_in_another_unit_causes_a_warning(caplog, client, url, options, question):
    client(url, **options)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", question)]


@pytest.mark.parametrize(("options", "question"), QUESTIONED_OF_A_PRODUCER)
@pytest.mark.parametrize("kind", [Producer, AsyncProducer])
def test_a_time_in_another_unit_causes_one_warning(caplog, kind, options, question):
    kind(["ws://h", "http://h"], **options)
    assert [record.getMessage() for record in caplog.records] == [question]


@pytest.mark.parametrize(("client", "url"), CLIENTS, ids=lambda one: getattr(one, "__name__", ""))
def test_usual_times_are_not_questioned(caplog, client, url):
    client(url)
    client(url, timeout=0.01, connect_timeout=3600)
    Producer("http://h", linger=0.000_001, block_timeout=0.001, delivery_timeout=30 * 86_400, ping_interval=None)
    assert caplog.records == []


@pytest.mark.parametrize("kind", [Producer, AsyncProducer])
@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "not None: does it come from an unset variable?"),
        ([None], "not None: does it come from an unset variable?"),
        (b"http://h", "not bytes"),
        (5, "not int"),
    ],
)
def test_a_producer_s_url_that_is_not_text(kind, url, words):
    with pytest.raises(TypeError) as caught:
        kind(url)
    assert str(caught.value) == f"url must be a str such as http://host:port, {words}"


@pytest.mark.parametrize(("client", "url"), CLIENTS, ids=lambda one: getattr(one, "__name__", ""))
@pytest.mark.parametrize("wrong", ["ftp://h", "http://", "ws://h:99999", "://h", "http://h:port"])
def test_a_wrong_url(client, url, wrong):
    with pytest.raises(ValueError, match=r"url|port|host|scheme"):
        client(wrong)
    with pytest.raises(TypeError):
        client(5)


@pytest.mark.parametrize(("client", "url"), CLIENTS, ids=lambda one: getattr(one, "__name__", ""))
def test_secrets_are_not_shown(client, url):
    secret = "s3cr3t"
    made = client(url, auth=secret, headers={"X-Key": secret}, proxy=f"http://user:{secret}@proxy:3128")
    assert secret not in repr(made)
    with pytest.raises(ValueError, match="proxy") as caught:
        client(url, proxy=f"http://user:{secret}@proxy:0")
    assert secret not in str(caught.value)
    with pytest.raises(ValueError, match="auth") as caught:
        client(url, auth=f"{secret}\n")
    assert secret not in str(caught.value)


SECRET = "s3cr3t"
SHOWS_NOTHING = [
    {"headers": {"X-Key": f"{SECRET}\r\n"}},
    {"headers": {"X-Key": f"{SECRET}é"}},
    {"headers": {"X-Key": SECRET.encode()}},
    {"headers": [("X-Key", SECRET)]},
    {"user_id": f"{SECRET}\n"},
    {"group": f"\x00{SECRET}"},
    {"auth": f"{SECRET}\u20ac"},
    {"auth": SECRET.encode()},
    {"auth": [SECRET]},
    {"auth": ("user", f"{SECRET}\ud800")},
    {"auth": ("user", SECRET, "more")},
    {"tls": {"password": SECRET}},
]


@pytest.mark.parametrize("options", SHOWS_NOTHING, ids=lambda options: next(iter(options)))
@pytest.mark.parametrize(("client", "url"), CLIENTS, ids=lambda one: getattr(one, "__name__", ""))
def test_secrets_stay_out_of_errors(client, url, options):
    with pytest.raises((TypeError, ValueError), match=next(iter(options))) as caught:
        client(url, **options)
    error = caught.value
    assert SECRET not in f"{error} {error!r}"
    assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.parametrize(("client", "url"), CLIENTS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_client_s_attributes_show_no_password(client, url):
    scheme, separator, rest = url.rpartition("://")
    made = client(f"{scheme}{separator}user:{SECRET}@{rest}", headers={"X-Key": SECRET})
    assert SECRET not in repr(made.__dict__)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"headers": {"x-user-id": "a"}}, "use user_id="),
        ({"headers": {"Me": "a"}, "id_header": "me"}, "use user_id="),
        ({"headers": {"X-user-group": "a"}, "group": "g"}, "use group="),
        ({"headers": {"authorization": "a"}, "auth": "token"}, "use auth="),
        ({"id_header": "authorization", "auth": "token"}, "id_header: 'authorization' is set by the client itself"),
    ],
    ids=str,
)
@pytest.mark.parametrize(("client", "url"), CLIENTS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_header_has_one_source(client, url, options, said):
    with pytest.raises(ValueError, match=said):
        client(url, **options)


def test_headers_that_nothing_else_sets_are_free():
    RestClient("http://h", headers={"X-User-Group": "g", "Authorization": "Bearer t"}).close()


@pytest.mark.parametrize("client", [Producer, AsyncProducer])
def test_grpc_and_http_cannot_share_one_ssl_context(client):
    """A context holds the protocols offered by ALPN, which differ."""
    context = ssl.create_default_context()
    client(["grpcs://h", "grpcs://other"], tls=context)
    client(["https://h", "wss://h"], tls=context)
    with pytest.raises(ValueError, match="tls"):
        client(["grpcs://h", "https://h"], tls=context)


@pytest.mark.parametrize("client", [Producer, AsyncProducer])
def test_a_producer_takes_no_url_without_a_protocol(client):
    with pytest.raises(ValueError, match="http://localhost:8080, ws://localhost:8080 or grpc://localhost:8080"):
        client("localhost:8080")


@pytest.mark.parametrize("client", [Producer, AsyncProducer])
class TestProducer:
    @pytest.mark.parametrize(
        ("option", "value", "error"),
        [
            ("linger", 0, ValueError),
            ("linger", "1", TypeError),
            ("batch_events", 0, ValueError),
            ("batch_events", 1.5, TypeError),
            ("batch_bytes", 0, ValueError),
            ("batch_bytes", 1 << 40, ValueError),
            ("max_in_flight", 0, ValueError),
            ("max_in_flight", True, TypeError),
            ("connections", 0, ValueError),
            ("buffer_bytes", 1, ValueError),
            ("overflow", "explode", ValueError),
            ("overflow", None, ValueError),
            ("block_timeout", -1, ValueError),
            ("delivery_timeout", 0, ValueError),
            ("on_delivery", 5, TypeError),
            ("wire", "xml", ValueError),
            ("ping_interval", 0, ValueError),
            ("pong_timeout", None, TypeError),
            ("server_acks", "maybe", ValueError),
            ("spool_bytes", 0, ValueError),
            ("durable", 1, TypeError),
        ],
    )
    def test_a_wrong_option_is_named(self, client, option, value, error):
        with pytest.raises(error, match=option):
            client("ws://h", **{option: value})

    def test_no_url(self, client):
        with pytest.raises(ValueError, match="url"):
            client([])

    def test_wire_json_is_not_for_grpc(self, client):
        with pytest.raises(ValueError, match="wire"):
            client(["ws://h", "grpc://h"], wire="json")

    def test_all_that_is_right(self, client):
        client(
            ["wss://h", "https://h", "grpcs://h"],
            timeout=5,
            retry=RetryPolicy(),
            app=App("id", "name", "1"),
            tls=TLS(),
            auth=("user", "password"),
            headers={"X-Key": "value"},
            ping_interval=None,
        )
