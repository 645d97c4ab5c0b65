"""nginx, asked by an aiohttp client: files, ranges, uploads, resets, TLS 1.2 and 1.3.

NGINX_URL, NGINX_TLS_1_2_URL and NGINX_TLS_1_3_URL say where the server is, SSL_CERT_FILE whom
to trust and CLIENT_CERT holds the client's own certificate.
"""

import asyncio
import hashlib
import os
import ssl

import aiohttp

URL = os.environ["NGINX_URL"]


def digest(data):
    return len(data), hashlib.sha256(data).hexdigest()[:12]


async def pages(session):
    async with session.get(f"{URL}/small.txt") as response:
        print(response.status, response.headers["Content-Type"], await response.text())
    async with session.get(f"{URL}/large") as response:
        print(response.status, digest(await response.read()))
    async with session.get(f"{URL}/slow/large") as response:
        hashed, size = hashlib.sha256(), 0
        async for piece in response.content.iter_chunked(1 << 14):
            hashed.update(piece)
            size += len(piece)
        print(response.status, size, hashed.hexdigest()[:12])
    async with session.get(f"{URL}/large", headers={"Range": "bytes=100-199"}) as response:
        print(response.status, response.headers["Content-Range"], digest(await response.read()))
    async with session.get(f"{URL}/moved") as response:
        print(response.status, [step.status for step in response.history], response.url.path)
    async with session.get(f"{URL}/nothing") as response:
        print(response.status, "404 Not Found" in await response.text())


async def uploads(session):
    async def body():
        for n in range(200):
            yield bytes([n]) * 10_000

    for data in (b"x" * 3_000_000, body()):
        async with session.put(f"{URL}/upload/file", data=data) as response:
            print(response.status)
        async with session.get(f"{URL}/upload/file") as response:
            print(response.status, digest(await response.read()))
    async with session.delete(f"{URL}/upload/file") as response:
        print(response.status)


async def failures(session):
    for path, options in (
        ("/reset", {}),
        ("/slow/large", {"timeout": aiohttp.ClientTimeout(total=0.2)}),
    ):
        try:
            async with session.get(f"{URL}{path}", **options) as response:
                print(len(await response.read()))
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            print(type(error).__name__)


async def many(session):
    async def ask(n):
        async with session.get(f"{URL}/echo?question={n}", headers={"X-Name": "you"}) as response:
            return await response.text()

    answers = await asyncio.gather(*(ask(n) for n in range(500)))
    print(len(answers), repr(answers[-1]), len(set(answers)))


async def encrypted():
    with_certificate = ssl.create_default_context()
    with_certificate.load_cert_chain(os.environ["CLIENT_CERT"])
    nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it trusts nobody
    async with aiohttp.ClientSession() as session:
        for url in (os.environ["NGINX_TLS_1_2_URL"], os.environ["NGINX_TLS_1_3_URL"]):
            for context in (ssl.create_default_context(), with_certificate):
                async with session.get(f"{url}/echo", ssl=context) as response:
                    print(response.status, await response.text())
            async with session.get(f"{url}/large", ssl=with_certificate) as response:
                print(response.status, digest(await response.read()))
            for wrong in ({"ssl": nobody}, {"server_hostname": "elsewhere"}):
                try:
                    await session.get(f"{url}/echo", **wrong)
                except aiohttp.ClientError as error:
                    print(type(error).__name__)


async def main():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=20)) as session:
        for part in (pages, uploads, failures, many):
            await part(session)
    await encrypted()


asyncio.run(main())
