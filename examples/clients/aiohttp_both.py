"""aiohttp's server and client over TCP, TLS and a Unix socket: streams, files, WebSockets.

SERVER_CERT holds the server's certificate and key, SSL_CERT_FILE its authority.
"""

import asyncio
import hashlib
import os
import ssl
import tempfile

import aiohttp
from aiohttp import web


async def hello(request):
    return web.json_response({"name": request.query.get("name"), "secure": request.secure})


async def download(request):
    response = web.StreamResponse()
    response.enable_compression()
    await response.prepare(request)
    for n in range(300):
        await response.write(b"line %d of the stream\n" % n * 50)
    return response


async def upload(request):
    digest, size = hashlib.sha256(), 0
    async for piece in request.content.iter_chunked(1 << 14):
        digest.update(piece)
        size += len(piece)
    return web.json_response({"size": size, "sha256": digest.hexdigest()[:12]})


async def form(request):
    parts = []
    async for part in await request.multipart():
        parts.append([part.name, part.filename, len(await part.read())])
    return web.json_response(parts)


async def chat(request):
    socket = web.WebSocketResponse(heartbeat=10)
    await socket.prepare(request)
    async for message in socket:
        if message.type == aiohttp.WSMsgType.BINARY:
            await socket.send_bytes(message.data[::-1])
        elif message.data == "leave":
            await socket.close(code=4000, message=b"as you wish")
        else:
            await socket.send_str(message.data.upper())
    return socket


async def ask(session, url):
    async with session.get(f"{url}/hello?name=you") as response:
        print(response.status, await response.json())
    async with session.get(f"{url}/download") as response:
        body = await response.read()
        print(response.headers["Content-Encoding"], len(body), hashlib.md5(body).hexdigest())
    async with session.get(f"{url}/files/large", headers={"Range": "bytes=1000-"}) as response:
        body = await response.read()
        print(response.status, len(body), hashlib.md5(body).hexdigest())

    async def pieces():
        for n in range(200):
            yield bytes([n]) * 20_000

    for data in (b"x" * 5_000_000, pieces()):
        async with session.post(f"{url}/upload", data=data) as response:
            print(await response.json())
    data = aiohttp.FormData({"word": "hello"})
    data.add_field("file", b"y" * 100_000, filename="y.txt")
    async with session.post(f"{url}/form", data=data) as response:
        print(await response.json())
    async with session.ws_connect(f"{url}/chat", compress=15) as socket:
        await socket.send_str("hello")
        await socket.send_bytes(bytes(range(256)) * 4000)
        text, data = await socket.receive_str(), await socket.receive_bytes()
        print(text, len(data), hashlib.md5(data).hexdigest())
        await socket.send_str("leave")
        print((await socket.receive()).type.name, socket.close_code)

    async def name(n):
        async with session.get(f"{url}/hello?name={n}") as response:
            return int((await response.json())["name"])

    print(sum(await asyncio.gather(*(name(n) for n in range(300)))))


async def main():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(os.environ["SERVER_CERT"])
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "large"), "wb") as file:
            file.write(bytes(range(250)) * 20_000)
        app = web.Application(client_max_size=1 << 24)
        app.add_routes([web.get("/hello", hello), web.get("/download", download)])
        app.add_routes([web.post("/upload", upload), web.post("/form", form)])
        app.add_routes([web.get("/chat", chat), web.static("/files", folder)])
        runner = web.AppRunner(app)
        await runner.setup()
        unix = os.path.join(folder, "socket")
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        await web.UnixSite(runner, unix).start()
        ports = [address[1] for address in runner.addresses[:2]]
        for connector, url in (
            (aiohttp.TCPConnector(limit=20), f"http://127.0.0.1:{ports[0]}"),
            (aiohttp.TCPConnector(limit=20), f"https://localhost:{ports[1]}"),
            (aiohttp.UnixConnector(unix, limit=20), "http://localhost"),
        ):
            async with aiohttp.ClientSession(connector=connector) as session:
                await ask(session, url)
        await runner.cleanup()


asyncio.run(main())
