"""The websockets package, server and client, over TCP, TLS and a Unix socket.

SERVER_CERT holds the server's certificate and key, SSL_CERT_FILE its authority.
"""

import asyncio
import hashlib
import logging
import os
import ssl
import tempfile

from websockets.asyncio.client import connect, unix_connect
from websockets.asyncio.server import broadcast, serve, unix_serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

LISTENERS = set()


async def handle(connection):
    if connection.request.path == "/listen":
        LISTENERS.add(connection)
        await connection.send("listening")
        await connection.wait_closed()
        LISTENERS.discard(connection)
        return
    async for message in connection:
        if message == "fail":
            raise ZeroDivisionError("on purpose")
        if message == "leave":
            await connection.close(4000, "as you wish")
            return
        elif isinstance(message, bytes):
            await connection.send(hashlib.sha256(message).digest())
        else:
            await connection.send(message.upper())


async def only_known_paths(connection, request):
    if request.path not in ("/", "/listen"):
        return connection.respond(403, "not here\n")


async def talk(open_connection):
    async with open_connection() as connection:
        await connection.send("hello")
        print(await connection.recv(), connection.response.status_code)
        pong = await connection.ping()
        print("pong:", await pong > 0)
        for size in (0, 1, 125, 126, 65535, 65536, 1_000_000):
            data = bytes(n % 251 for n in range(size))
            await connection.send(data)
            print(size, await connection.recv() == hashlib.sha256(data).digest())
        # One message in many pieces, with a lot of others waiting behind it.
        await connection.send(f"piece {n} " for n in range(100))
        for n in range(1000):
            await connection.send(f"message {n}")
        answers = [await connection.recv() for _ in range(1001)]
        print(len(answers[0]), answers[1], answers[-1])
    for farewell in ("leave", "fail"):
        async with open_connection() as connection:
            await connection.send(farewell)
            try:
                await connection.recv()
            except ConnectionClosed as closed:
                print(closed.rcvd.code, closed.rcvd.reason)


async def news(open_connection):
    connections = [await open_connection("/listen") for _ in range(30)]
    print({await connection.recv() for connection in connections})
    broadcast(LISTENERS, "news for all")
    print([await connection.recv() for connection in connections].count("news for all"))
    await asyncio.gather(*(connection.close() for connection in connections))


async def refused(open_connection):
    try:
        await open_connection("/elsewhere")
    except InvalidStatus as error:
        print(error.response.status_code, bytes(error.response.body))


async def main():
    # It logs the handler that fails on purpose.
    logging.getLogger("websockets.server").addHandler(logging.NullHandler())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(os.environ["SERVER_CERT"])
    options = {"process_request": only_known_paths, "max_size": 1 << 21}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        tcp = await serve(handle, "127.0.0.1", 0, **options)
        tls = await serve(handle, "127.0.0.1", 0, ssl=context, **options)
        unix = await unix_serve(handle, path, compression=None, **options)
        ports = [server.sockets[0].getsockname()[1] for server in (tcp, tls)]
        for name, open_connection in (
            ("TCP", lambda page="/": connect(f"ws://127.0.0.1:{ports[0]}{page}")),
            ("TLS", lambda page="/": connect(f"wss://localhost:{ports[1]}{page}")),
            ("Unix", lambda page="/": unix_connect(path, uri=f"ws://localhost{page}")),
        ):
            print(name)
            for part in (talk, news, refused):
                await part(open_connection)
        for server in (tcp, tls, unix):
            server.close()
            await server.wait_closed()


asyncio.run(main())
