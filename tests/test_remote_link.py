"""The HTTP side of a remote engine against servers that break the rules."""

import asyncio
import os
import ssl
import sys
import time
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from lhrm_server.engine import EngineError, EngineTimeoutError, EngineUnreachableError
from lhrm_server.remote_link import RemoteLink
from lhrm_server.remote_place import Place, Timeouts

from tests.needed import package


@asynccontextmanager
async def answering_raw(*parts: bytes, tls: ssl.SSLContext | None = None):
    """Listen, answer every request with `parts`, a little apart, and collect what was asked."""
    calls: list[bytes] = []
    over = asyncio.Event()

    async def answer(reader, writer):
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            calls.append(await reader.readuntil(b"\r\n\r\n"))
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.05)
        await over.wait()
        writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}", calls
        over.set()
        await asyncio.sleep(0.1)


async def drained(stream) -> None:
    async for _ in stream:
        pass


def self_signed(folder) -> tuple[Path, ssl.SSLContext]:
    """Return the certificate of a server at 127.0.0.1 that nobody knows, and its context."""
    x509 = package("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "engine")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "engine.pem", folder / "engine.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(pem, pkcs8, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    return certificate, context


GREETING = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
ASK_STATUS = """
import asyncio, sys
from lhrm_server.remote_link import RemoteLink
from lhrm_server.remote_place import Place, Timeouts
async def main():
    link = RemoteLink(Place(sys.argv[1]), Timeouts(health_s=20))
    print(await link.status("/health"))
    await link.close()
asyncio.run(main())
"""


async def test_https_with_an_unknown_certificate_is_refused_at_once(tmp_path):
    async with answering_raw(GREETING, tls=self_signed(tmp_path)[1]) as (url, calls):
        link = RemoteLink(Place(url), Timeouts())
        for call in (link.whole({}, {}), link.status("/health")):
            with pytest.raises(EngineUnreachableError, match=r"no trusted TLS connection .*SSL_CERT_FILE.*CERTIFICATE"):
                await call
        await link.close()
        assert calls == []


async def test_https_where_plain_http_is_spoken_is_told():
    async def refuse(reader, writer):
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        link = RemoteLink(Place(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"), Timeouts())
        with pytest.raises(EngineUnreachableError, match="no trusted TLS connection"):
            await link.status("/health")
        await link.close()


async def test_https_with_a_certificate_that_the_environment_names(tmp_path):
    certificate, context = self_signed(tmp_path)
    async with answering_raw(GREETING, tls=context) as (url, calls):
        environment = {**os.environ, "SSL_CERT_FILE": str(certificate)}
        # aiohttp reads the authorities when it is imported, so another process asks.
        asking = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ASK_STATUS, url, env=environment, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await asyncio.wait_for(asking.communicate(), 60)
        assert out.decode().strip() == "204"
        assert calls[0].startswith(b"GET /health HTTP/1.1")


NO_HTTP = {
    "no status line": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "an endless header": b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", NO_HTTP)
async def test_what_is_not_http_is_told_and_not_asked_again(name):
    async with answering_raw(NO_HTTP[name]) as (url, calls):
        link = RemoteLink(Place(url), Timeouts())
        with pytest.raises(EngineError, match="is not HTTP") as failure:
            await link.whole({}, {})
        assert type(failure.value) is EngineError
        assert len(calls) == 1
        await link.close()


@pytest.mark.parametrize("tokens", [1, 9])
async def test_broken_framing_is_an_engine_error(tokens):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: "
    kind = b"application/json" if tokens == 1 else b"text/event-stream"
    async with answering_raw(head + kind + b"\r\n\r\n" + b"5\r\nabcde\r\n", b"this is no length\r\n") as (url, _):
        link = RemoteLink(Place(url), Timeouts(first_event_s=0.5, idle_s=0.5))
        with pytest.raises(EngineError):
            await (link.whole({}, {}) if tokens == 1 else drained(link.events({}, {})))
        await link.close()


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_close_does_not_wait_for_a_server_that_does_not_read():
    given_up = asyncio.Event()

    async def never_read(_, writer):
        await given_up.wait()
        writer.transport.abort()

    server = await asyncio.start_server(never_read, "127.0.0.1", 0, limit=1 << 10)
    link = RemoteLink(Place(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), Timeouts(first_event_s=0.3))
    started = time.monotonic()
    with pytest.raises(EngineTimeoutError):
        await link.whole({"prompt": "x" * (16 << 20)}, {})
    await link.close()
    assert time.monotonic() - started < 5
    given_up.set()
    server.close()
    await asyncio.sleep(0.2)
