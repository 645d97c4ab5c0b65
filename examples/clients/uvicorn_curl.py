"""An ASGI application on uvicorn with httptools, visited by curl.

uvicorn chooses its loop itself: UVICORN_LOOP, or --loop, names a function that makes one.
SERVER_CERT holds the server's certificate and key, SSL_CERT_FILE its authority.
"""

import asyncio
import hashlib
import os
import sys
import tempfile

STARTED = []


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        STARTED.append(type(asyncio.get_running_loop()).__module__)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    path, body = scope["path"], b""
    await send({"type": "http.response.start", "status": 404 if path == "/nothing" else 200})
    if path == "/hello":
        body = f"{scope['method']} {scope['scheme']} {scope['query_string'].decode()}\n".encode()
    elif path == "/loop":
        body = STARTED[0].partition(".")[0].encode()
    elif path == "/stream":
        for n in range(500):
            piece = {"body": b"piece %d\n" % n * 500, "more_body": True}
            await send({"type": "http.response.body", **piece})
    elif path == "/upload":
        digest, size, more = hashlib.sha256(), 0, True
        while more:
            event = await receive()
            digest.update(event.get("body", b""))
            size += len(event.get("body", b""))
            more = event.get("more_body", False)
        body = f"{size} {digest.hexdigest()}\n".encode()
    await send({"type": "http.response.body", "body": body})


async def curl(*arguments):
    client = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", "--max-time", "30", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await client.communicate()
    return client.returncode, out


async def visit(url, folder, *options):
    large = os.path.join(folder, "large")
    with open(large, "wb") as file:
        file.write(bytes(range(250)) * 20_000)
    print(await curl(*options, f"{url}/hello?a=b"))
    print(await curl(*options, "--head", "--write-out", "%{http_code}", f"{url}/nothing"))
    status, out = await curl(*options, f"{url}/stream")
    print(status, len(out), hashlib.sha256(out).hexdigest()[:12])
    print(await curl(*options, "--upload-file", large, f"{url}/upload"))
    print(await curl(*options, "--upload-file", large, "-H", "Expect:", f"{url}/upload"))
    # Several requests on one connection, then many at once.
    pages = [f"{url}/hello?[1-50]", "--write-out", "%{num_connects}"]
    status, out = await curl(*options, *pages)
    print(status, len(out), out[-40:])
    answers = await asyncio.gather(*(curl(*options, f"{url}/hello?{n}") for n in range(20)))
    print(sum(status for status, _ in answers), answers[-1][1])


async def serve(folder, name, url, *options):
    """Run uvicorn on a Unix socket: it has no port that somebody else could take."""
    path = os.path.join(folder, name)
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "uvicorn_curl:application", "--http", "httptools"),
        *("--uds", path, "--log-level", "warning", "--no-server-header", "--no-date-header"),
        *("--app-dir", os.path.dirname(os.path.abspath(__file__)), *options),
    )
    reach = ("--unix-socket", path, "--cacert", os.environ["SSL_CERT_FILE"])
    while (await curl(*reach, f"{url}/loop"))[0] and server.returncode is None:
        await asyncio.sleep(0.1)
    _, module = await curl(*reach, f"{url}/loop")
    wanted = os.environ["UVICORN_LOOP"].partition(":")[0]
    print(name, "the loop is the chosen one:", module.decode() == wanted)
    await visit(url, folder, *reach)
    server.terminate()
    print("uvicorn ended:", await asyncio.wait_for(server.wait(), 20))


async def main():
    certificate = os.environ["SERVER_CERT"]
    with tempfile.TemporaryDirectory() as folder:
        await serve(folder, "plain", "http://localhost")
        options = ("--ssl-certfile", certificate, "--ssl-keyfile", certificate)
        await serve(folder, "TLS", "https://localhost", *options)


if __name__ == "__main__":
    asyncio.run(main())
