"""TLS and mutual TLS on all three protocols, with certificates made by the tests."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import sys
import time

import pytest
from any_client import ASYNC, SYNC, OnLoop, new_client
from certificates import Files, make_certificates
from cryptography.hazmat.primitives import serialization
from patience import patient
from scripted import tcp_server

from raccoon_fast import (
    RAW,
    TLS,
    ConnectError,
    DeliveryError,
    GrpcClient,
    Outcome,
    Producer,
    RestClient,
    RetryPolicy,
    TLSError,
    TransportError,
    WebSocketClient,
)
from raccoon_fast.collector import Collector
from raccoon_fast.net import resolver

EVENTS = [("page", b"{}")]
PROTOCOLS = ["rest", "websocket", "grpc"]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    return make_certificates(tmp_path_factory.mktemp("tls"))


def client_for(protocol: str, collector: Collector, tls: object, **options):
    options = {"serializer": RAW, "logger": None, "tls": tls, "timeout": 5.0, **options}
    if protocol == "rest":
        return RestClient(collector.url, **options)
    if protocol == "websocket":
        return WebSocketClient(collector.ws_url, **options)
    return GrpcClient(f"grpcs://{collector.grpc_target}", **options)


def client_of(protocol: str, host: str, **options):
    """A client of a secure URL of that protocol."""
    options = {"serializer": RAW, "logger": None, "retry": RetryPolicy(max_attempts=1), "timeout": 5.0, **options}
    make, scheme = {
        "rest": (RestClient, "https"),
        "websocket": (WebSocketClient, "wss"),
        "grpc": (GrpcClient, "grpcs"),
    }[protocol]
    return make(f"{scheme}://{host}", **options)


def serving(files: Files, certificate: str = "server", **options) -> Collector:
    path = getattr(files, certificate)
    return Collector(tls_cert=path, tls_key=path, **options)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_events_go_to_a_trusted_server(protocol, files):
    with serving(files) as collector, client_for(protocol, collector, TLS(ca=files.ca)) as client:
        client.send([("big", b"x" * 1_000_000)])
        client.send(EVENTS)
        assert collector.event_count == 2


@pytest.mark.parametrize("protocol", ["rest", "websocket"])
def test_on_asyncio_a_lost_connection_is_a_closed_transport(protocol, files, monkeypatch):
    """Python 3.10 warns of a TLS transport that ended and was never closed."""
    gc.collect()  # others'
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)

    async def main():
        retry = RetryPolicy(max_attempts=3, initial=0.01)
        async with new_client(protocol, collector, ASYNC, tls=TLS(ca=files.ca), retry=retry) as client:
            await client.send(EVENTS)
            await asyncio.to_thread(collector.faults.close_connections)
            await client.send(EVENTS)

    with serving(files) as collector:
        asyncio.run(main())
    gc.collect()
    assert ignored == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_context_of_the_users_own(protocol, files):
    context = ssl.create_default_context(cafile=files.ca)
    with serving(files) as collector, client_for(protocol, collector, context) as client:
        client.send(EVENTS)


@pytest.mark.parametrize(
    ("certificate", "trusted", "said"),
    [
        ("server", "other_ca", "CERTIFICATE|certificate"),
        ("server", None, "CERTIFICATE|certificate"),
        ("expired", "ca", "CERTIFICATE|certificate"),
        ("elsewhere", "ca", "CERTIFICATE|certificate|Hostname|Peer name|hostname|IP address"),
    ],
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_untrusted_server_is_named_as_such_and_not_tried_again(protocol, certificate, trusted, said, files):
    tls = None if trusted is None else TLS(ca=getattr(files, trusted))
    retry = RetryPolicy(max_attempts=5, initial=60.0, jitter=None)  # a retry would take a minute
    with serving(files, certificate) as collector, client_for(protocol, collector, tls, retry=retry) as client:
        with pytest.raises(TLSError, match=said) as untrusted:
            client.send(EVENTS)
        assert collector.request_count == 0
    assert untrusted.value.attempts == 1
    assert not untrusted.value.retryable


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_producer_says_so_at_once_and_keeps_its_events(protocol, files):
    lines = []

    class Logger:
        info = warning = staticmethod(lambda msg, *args: None)
        error = staticmethod(lambda msg, *args: lines.append(msg % args))

    with serving(files) as collector:
        url = {"rest": collector.url, "websocket": collector.ws_url, "grpc": f"grpcs://{collector.grpc_target}"}
        with Producer(url[protocol], serializer=RAW, logger=Logger(), tls=TLS(ca=files.other_ca)) as producer:
            producer.emit("a", b"x")
            assert producer.flush(timeout=0.5) == 1
            assert not producer.health().ok
            assert "cannot trust" in lines[0]
            assert producer.close(timeout=0).total.failed == {"closed": 1}
        assert collector.request_count == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_mutual_tls(protocol, files):
    mutual = TLS(ca=files.ca, cert=files.client)
    with serving(files, tls_client_ca=files.ca) as collector:
        with client_for(protocol, collector, mutual) as client:
            client.send(EVENTS)
        for tls in (TLS(ca=files.ca), TLS(ca=files.ca, cert=files.stranger)):
            stranger = client_for(protocol, collector, tls, retry=RetryPolicy(max_attempts=1))
            with stranger, pytest.raises(TransportError):
                stranger.send(EVENTS)
        assert collector.event_count == 1


@pytest.mark.parametrize("certificate", [None, "stranger", "expired_client"])
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("classes", [SYNC, ASYNC], ids=["sync", "async"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_refused_client_certificate_is_named_as_such(protocol, classes, version, certificate, files):
    """With TLS 1.3 the server's verdict comes after the handshake is over for the client."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.ca)
    context.load_cert_chain(files.server)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    context.set_alpn_protocols(["h2", "http/1.1"])

    def script(connection):
        # Closed with bytes unread a socket is reset, and the verdict may be lost with it.
        with connection.sock.dup() as held:
            with contextlib.suppress(ssl.SSLError):
                context.wrap_socket(connection.sock, server_side=True)
            while held.recv(65536):
                pass

    scheme = {"rest": "https", "websocket": "wss", "grpc": "grpcs"}[protocol]
    tls = TLS(ca=files.ca, cert=None if certificate is None else getattr(files, certificate))
    with tcp_server(script) as host:
        made = new_client(protocol, f"{scheme}://{host}", classes, tls=tls)
        with made if classes is SYNC else OnLoop(made) as client, pytest.raises(TLSError) as no:
            client.send(EVENTS)
    assert (no.value.outcome, no.value.retryable) == (Outcome.NOT_DELIVERED, False)
    assert "certificate" in str(no.value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_goes_to_a_plain_port_in_plain_text(protocol):
    seen = []

    def script(connection):
        seen.append(connection.sock.recv(65536))
        connection.sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        connection.wait_closed()

    retry = RetryPolicy(max_attempts=2, initial=0.01)
    with (
        tcp_server(script) as host,
        client_of(protocol, host, retry=retry) as client,
        pytest.raises(TransportError) as failure,
    ):
        client.send(EVENTS)
    assert isinstance(failure.value, ConnectError)
    assert seen
    assert all(data[:1] == b"\x16" for data in seen)  # a TLS handshake record, RFC 8446 5.1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_text_to_a_tls_port_fails(protocol, files):
    with serving(files) as collector:
        options = {"serializer": RAW, "logger": None, "retry": RetryPolicy(max_attempts=1), "timeout": 5.0}
        plain = {
            "rest": lambda: RestClient(collector.url.replace("https", "http"), **options),
            "websocket": lambda: WebSocketClient(collector.ws_url.replace("wss", "ws"), **options),
            "grpc": lambda: GrpcClient(collector.grpc_target, **options),
        }
        with plain[protocol]() as client, pytest.raises(DeliveryError):
            client.send(EVENTS)
        assert collector.request_count == 0


class TestFiles:
    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"ca=.*nowhere\.pem"):
            TLS(ca=tmp_path / "nowhere.pem")

    def test_a_key_needs_its_certificate(self, files):
        with pytest.raises(ValueError, match="cert="):
            TLS(key=files.client)

    def test_key_and_certificate_may_be_apart(self, files, tmp_path):
        text = files.client.read_text()
        end = (
            "-----END RSA PRIVATE KEY-----\n" if "RSA" in text else text[text.index("-----END") :].split("\n")[0] + "\n"
        )
        key, _, cert = text.partition(end)
        (tmp_path / "key.pem").write_text(key + end)
        (tmp_path / "cert.pem").write_text(cert)
        tls = TLS(ca=files.ca, cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")
        with serving(files, tls_client_ca=files.ca) as collector:
            for protocol in PROTOCOLS:
                with client_for(protocol, collector, tls) as client:
                    client.send(EVENTS)

    @pytest.fixture
    def locked(self, files, tmp_path):
        """The client's certificate and its key, encrypted, in one file."""
        text = files.client.read_bytes()
        key = serialization.load_pem_private_key(text, None)
        encryption = serialization.BestAvailableEncryption(b"s3cret")
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        path = tmp_path / "locked.pem"
        path.write_bytes(pem + text[text.index(b"-----BEGIN CERTIFICATE") :])
        return path

    @pytest.mark.parametrize("password", ["s3cret", b"s3cret"])
    def test_an_encrypted_key_takes_its_password(self, files, locked, password):
        with serving(files, tls_client_ca=files.ca) as collector:
            for protocol in PROTOCOLS:
                for tls in (
                    TLS(ca=files.ca, cert=locked, password=password),
                    TLS(ca=files.ca, cert=locked, key=locked, password=password),
                    TLS(ca=files.ca, cert=files.client, password="is not needed"),
                ):
                    with client_for(protocol, collector, tls) as client:
                        client.send(EVENTS)

    @pytest.mark.parametrize("password", [None, "", "wr0ng", "wr0ng" * 1000])
    @pytest.mark.parametrize("protocol", PROTOCOLS)
    def test_a_key_without_its_password_is_named_and_nobody_is_asked(self, files, locked, protocol, password, capfd):
        tls = TLS(ca=files.ca, cert=locked, password=password)
        with (
            serving(files, tls_client_ca=files.ca) as collector,
            client_for(protocol, collector, tls) as client,
            pytest.raises(TLSError, match=r"password=….*locked\.pem|locked\.pem.*password=…") as caught,
        ):
            client.send(EVENTS)
        assert not caught.value.retryable
        assert "wr0ng" not in f"{caught.value}{caught.value!r}{caught.value.__cause__!r}{tls!r}"
        assert "PEM pass phrase" not in "".join(capfd.readouterr())

    def test_the_password_is_not_shown(self, files):
        assert "s3cret" not in repr(TLS(cert=files.client, password="s3cret"))

    def test_a_password_needs_a_key(self, files):
        with pytest.raises(ValueError, match="private key"):
            TLS(ca=files.ca, password="s3cret")
        with pytest.raises(TypeError, match=r"^TLS\(password=…\) takes a str, not int$"):
            TLS(cert=files.client, password=5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_handshake_that_hangs_is_given_up(protocol):
    def script(connection):
        connection.wait_closed()

    with tcp_server(script) as host, client_of(protocol, host, connect_timeout=0.3, timeout=0.5) as client:
        began = time.monotonic()
        with pytest.raises(DeliveryError):
            client.send(EVENTS)
        assert time.monotonic() - began < patient(5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_name_can_be_asked_for(protocol, files):
    """For a tunnel, for example: the certificate is for elsewhere.test, and the URL has an IP address."""
    with serving(files, "elsewhere") as collector:
        with (
            client_for(protocol, collector, TLS(ca=files.ca), retry=RetryPolicy(max_attempts=1)) as client,
            pytest.raises(TLSError, match="cannot trust"),
        ):
            client.send(EVENTS)
        with client_for(protocol, collector, TLS(ca=files.ca), server_hostname="Elsewhere.test.") as client:
            client.send(EVENTS)
        assert collector.event_count == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_trailing_dot_reaches_only_the_resolver(protocol, files, monkeypatch):
    real, asked = resolver.look_up, []

    async def look_up(host, port):
        asked.append(host)
        return await real("127.0.0.1", port)

    monkeypatch.setattr(resolver, "look_up", look_up)
    with serving(files) as collector:
        port = collector.grpc_port if protocol == "grpc" else collector.port
        with client_of(protocol, f"localhost.:{port}", tls=TLS(ca=files.ca)) as client:
            client.send(EVENTS)
        assert asked == ["localhost."]
        assert collector.event_count == 1
