"""aiohttp's server and client, unmodified: pages, streams, uploads, WebSockets, TLS."""

import asyncio
import hashlib
import io
import os
import ssl
import subprocess
import sys

import pytest

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp has no wheel for this version of Python")
from aiohttp import web  # noqa: E402 - only after it is known to be there

CERTIFICATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "localhost.pem")


def page(n):
    return hashlib.sha256(str(n).encode()).digest() * n


async def serve_page(request):
    return web.Response(body=page(int(request.match_info["n"])))


async def serve_port(request):
    return web.Response(text=str(request.transport.get_extra_info("peername")[1]))


async def serve_stream(request):
    response = web.StreamResponse()
    await response.prepare(request)
    for n in range(20):
        await response.write(b"%d\n" % n)
        await asyncio.sleep(0)
    return response


async def take_upload(request):
    digest, size = hashlib.sha256(), 0
    async for chunk in request.content.iter_chunked(1 << 14):
        digest.update(chunk)
        size += len(chunk)
    return web.json_response({"size": size, "sha256": digest.hexdigest()})


async def websocket(request):
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str(message.data.upper())
    return ws


async def fail(request):
    raise ValueError("in the handler")


async def slow(request):
    await asyncio.sleep(30)
    return web.Response()


def with_site(loop, client, context=None, scheme="http"):
    """Run `client(session, base_url)` beside a server with all handlers."""

    async def main():
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/page/{n}", serve_page)
        app.router.add_get("/port", serve_port)
        app.router.add_get("/stream", serve_stream)
        app.router.add_post("/upload", take_upload)
        app.router.add_get("/ws", websocket)
        app.router.add_get("/fail", fail)
        app.router.add_get("/slow", slow)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        port = runner.addresses[0][1]
        try:
            async with aiohttp.ClientSession() as session:
                return await client(session, f"{scheme}://127.0.0.1:{port}")
        finally:
            await runner.cleanup()
            # Closed TLS connections end a little after the session does.
            await asyncio.sleep(0.05)

    return loop.run_until_complete(main())


def test_many_pages(loop):
    async def client(session, base):
        async def get(n):
            async with session.get(f"{base}/page/{n}") as response:
                return response.status, await response.read()

        return await asyncio.gather(*(get(n) for n in range(0, 3000, 10)))

    results = with_site(loop, client)
    assert results == [(200, page(n)) for n in range(0, 3000, 10)]


def test_keep_alive_connections_are_reused(loop):
    async def client(session, base):
        ports = set()
        for _ in range(20):
            async with session.get(f"{base}/port") as response:
                ports.add(await response.text())
        return ports

    assert len(with_site(loop, client)) == 1


def test_chunked_stream(loop):
    async def client(session, base):
        async with session.get(f"{base}/stream") as response:
            return [line async for line in response.content]

    assert with_site(loop, client) == [b"%d\n" % n for n in range(20)]


@pytest.mark.parametrize("size", [0, 1000, 5_000_000])
def test_upload(loop, size):
    data = os.urandom(size)

    async def client(session, base):
        async with session.post(f"{base}/upload", data=io.BytesIO(data)) as response:
            return await response.json()

    digest = hashlib.sha256(data).hexdigest()
    assert with_site(loop, client) == {"size": size, "sha256": digest}


def test_websocket(loop):
    async def client(session, base):
        async with session.ws_connect(f"{base}/ws") as ws:
            replies = []
            for n in range(50):
                await ws.send_str(f"message {n}")
                replies.append((await ws.receive()).data)
            return replies

    assert with_site(loop, client) == [f"MESSAGE {n}" for n in range(50)]


def test_error_in_a_handler(loop, caplog):
    async def client(session, base):
        async with session.get(f"{base}/fail") as response:
            return response.status

    assert with_site(loop, client) == 500
    assert "ValueError: in the handler" in caplog.text


def test_timeout_and_cancellation(loop):
    async def client(session, base):
        limit = aiohttp.ClientTimeout(total=0.1)
        with pytest.raises(asyncio.TimeoutError):
            await session.get(f"{base}/slow", timeout=limit)
        request = asyncio.ensure_future(session.get(f"{base}/slow"))
        await asyncio.sleep(0.05)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    with_site(loop, client)


def test_connection_refused(loop):
    async def client(session, base):
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.get("http://127.0.0.1:1/")
        return type(caught.value.os_error)

    assert with_site(loop, client) is ConnectionRefusedError


def test_tls(loop):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE)
    trust = ssl.create_default_context(cafile=CERTIFICATE)

    async def client(session, base):
        async def get(n):
            async with session.get(f"{base}/page/{n}", ssl=trust) as response:
                return await response.read()

        return await asyncio.gather(*(get(n) for n in range(0, 1000, 50)))

    assert with_site(loop, client, server, "https") == [page(n) for n in range(0, 1000, 50)]


def test_server_in_another_process(loop):
    """The client's bytes cross a real process boundary, with stock asyncio on the other side."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from aiohttp import web; from test_aiohttp import serve_page\n"
        "app = web.Application(); app.router.add_get('/page/{n}', serve_page)\n"
        "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(100)\n"
        "print(s.getsockname()[1], flush=True)\n"
        "web.run_app(app, sock=s, print=None, access_log=None)\n"
    )
    here = os.path.dirname(os.path.abspath(__file__))

    async def main():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, here, stdout=subprocess.PIPE
        )
        try:
            port = int(await asyncio.wait_for(process.stdout.readline(), 30))
            async with aiohttp.ClientSession() as session:

                async def get(n):
                    async with session.get(f"http://127.0.0.1:{port}/page/{n}") as response:
                        return await response.read()

                return await asyncio.gather(*(get(n) for n in range(100)))
        finally:
            process.terminate()
            await process.wait()

    assert loop.run_until_complete(main()) == [page(n) for n in range(100)]
