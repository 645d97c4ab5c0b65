"""TLS over TCP and Unix sockets."""

import asyncio
import socket
import ssl

from setups import Notes

from . import (
    at_least,
    client_context,
    connection,
    echo,
    raised,
    server_context,
    serving,
)
from .connections import Buffered


async def tls_server(handle=echo, **options):
    return await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_context(), **options)


@connection("TLS client/server, start_tls, ssl_*_timeout")
async def both_ends(loop):
    seen = []
    limits = {"ssl_handshake_timeout": 10}
    if at_least(3, 11):
        limits["ssl_shutdown_timeout"] = 5
    async with serving(await tls_server(**limits)) as where:
        for name in (None, "localhost"):
            context = client_context()
            transport, protocol = await loop.create_connection(
                Notes, *where, ssl=context, server_hostname=name, **limits
            )
            assert transport.get_extra_info("sslcontext") is context
            assert transport.get_extra_info("ssl_object").version().startswith("TLSv1.")
            names = transport.get_extra_info("peercert")["subjectAltName"]
            assert ("DNS", "localhost") in names
            seen.append((len(transport.get_extra_info("cipher")), transport.can_write_eof()))
            seen.append(transport.get_extra_info("compression"))
            # What libraries read of it.
            assert transport._ssl_protocol._sslcontext is context
            data = bytes(range(250)) * 4000
            transport.write(data)
            await protocol.received(len(data))
            assert protocol.data == data
            transport.close()
            assert await protocol.lost is None
            seen.append((protocol.events[0], protocol.events[-1]))
        wrong_name = loop.create_connection(
            Notes, *where, ssl=client_context(), server_hostname="elsewhere"
        )
        nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        loop.set_exception_handler(lambda loop, context: None)  # the server's side of it
        for attempt in (wrong_name, loop.create_connection(Notes, *where, ssl=nobody)):
            # OpenSSL's own text names a line of its source.
            seen.append((await raised(attempt)).partition(" (_ssl.c")[0])
        await asyncio.sleep(0.02)
    assert seen[-1].startswith("SSLCertVerificationError")
    return seen


@connection("TLS client/server, start_tls, ssl_*_timeout")
async def time_limits(loop):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = silent.getsockname()
        seen = [
            await raised(
                loop.create_connection(
                    Notes, *where, ssl=client_context(), ssl_handshake_timeout=0.05
                )
            )
        ]
        seen.append(await raised(loop.create_connection(Notes, *where, ssl_handshake_timeout=1)))
        if at_least(3, 11):
            options = {"ssl_shutdown_timeout": 1}
            seen.append(await raised(loop.create_connection(Notes, *where, **options)))
    return seen


@connection("TLS client/server, start_tls, ssl_*_timeout")
async def start_tls(loop):
    """Both sides begin in the clear and change over."""
    sides = []

    class Server(Notes):
        def __init__(self):
            super().__init__()
            sides.append(self)

    async with serving(await loop.create_server(Server, "127.0.0.1", 0)) as where:
        plain, client = await loop.create_connection(Notes, *where)
        plain.write(b"STARTTLS")
        while not sides or sides[0].data != b"STARTTLS":
            await asyncio.sleep(0.001)
        server = sides[0]
        transports = await asyncio.gather(
            loop.start_tls(server.transport, server, server_context(), server_side=True),
            loop.start_tls(plain, client, client_context(), server_hostname="localhost"),
        )
        transports[0].write(b"from the server")
        transports[1].write(b"from the client")
        while not (client.data and server.data.endswith(b"client")):
            await asyncio.sleep(0.001)
        assert client.data == b"from the server"
        assert server.data == b"STARTTLSfrom the client"
        assert transports[1].get_extra_info("sslcontext") is client_context()
        for transport in transports:
            transport.close()
        await asyncio.gather(client.lost, server.lost)
        seen = [client.events[0], client.events[-1], server.events[-1]]
        seen.append(await raised(loop.start_tls(plain, client, None)))
        return seen


@connection("TLS client/server, start_tls, ssl_*_timeout", since=(3, 11))
async def eof_over_tls(loop):
    """eof_received is called over TLS as well, and what came before it is not lost."""

    async def goodbye(reader, writer):
        writer.write(b"goodbye")
        writer.close()

    async with serving(await tls_server(goodbye)) as where:
        _, protocol = await loop.create_connection(Notes, *where, ssl=client_context())
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.data == b"goodbye"
        assert protocol.events[0] == "made"
        assert protocol.events[-2:] == ["eof", "lost NoneType"]


@connection("StreamWriter.start_tls", since=(3, 11))
async def stream_start_tls(loop):
    async def handle(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go on\n")
        await writer.drain()
        await writer.start_tls(server_context())
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()

    async with serving(await asyncio.start_server(handle, "127.0.0.1", 0)) as where:
        reader, writer = await asyncio.open_connection(*where)
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go on\n"
        await writer.start_tls(client_context(), server_hostname="localhost")
        assert writer.get_extra_info("ssl_object").version().startswith("TLSv1.")
        writer.write(b"hello\n")
        assert await reader.readline() == b"HELLO\n"
        writer.close()
        await writer.wait_closed()


@connection("connect_accepted_socket")
async def accepted_sockets_over_tls(loop):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        connecting = asyncio.ensure_future(
            loop.create_connection(Notes, *listener.getsockname(), ssl=client_context())
        )
        sock, _ = await loop.sock_accept(listener)
        transport, protocol = await loop.connect_accepted_socket(Notes, sock, ssl=server_context())
        client, other = await connecting
        client.write(b"hello")
        await protocol.received()
        assert protocol.data == b"hello"
        transport.close()
        client.close()
        await asyncio.gather(protocol.lost, other.lost)


@connection("BufferedProtocol tcp / tls (sizehint)")
async def buffered_over_tls(loop):
    async def send(reader, writer):
        writer.write(bytes(range(250)) * 100)
        writer.close()

    async with serving(await tls_server(send)) as where:
        transport, protocol = await loop.create_connection(Buffered, *where, ssl=client_context())
        assert await asyncio.wait_for(protocol.lost, 10) is None
        assert protocol.data == bytes(range(250)) * 100
        transport.close()
        return protocol.hints


@connection("unix TLS")
async def over_unix(loop, folder):
    path = folder / "socket"
    server = await asyncio.start_unix_server(echo, path, ssl=server_context())
    reader, writer = await asyncio.open_unix_connection(
        path, ssl=client_context(), server_hostname="localhost"
    )
    writer.write(b"hello\n")
    assert await reader.readline() == b"hello\n"
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    return await raised(loop.create_unix_connection(Notes, path, ssl=client_context()))
