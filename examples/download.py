"""An aiohttp ClientSession downloads many URLs from an aiohttp server on this machine."""

import asyncio
import hashlib

import aiohttp
from aiohttp import web

PAGES = 200


def page(n):
    return hashlib.sha256(str(n).encode()).digest() * (n * n)


async def serve_page(request):
    n = int(request.match_info["n"])
    if n == 13:
        raise web.HTTPNotFound(text="no page 13")
    return web.Response(body=page(n), content_type="application/octet-stream")


async def download(session, url):
    async with session.get(url) as response:
        body = await response.read()
        return response.status, len(body), hashlib.sha256(body).hexdigest()[:12]


async def main():
    app = web.Application()
    app.router.add_get("/{n}", serve_page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]

    connector = aiohttp.TCPConnector(limit=20)
    async with aiohttp.ClientSession(connector=connector) as session:
        urls = [f"http://127.0.0.1:{port}/{n}" for n in range(PAGES)]
        results = await asyncio.gather(*(download(session, url) for url in urls))
    await runner.cleanup()

    for n in (0, 1, 13, 100, PAGES - 1):
        print(f"page {n}:", *results[n])
    print("pages:", len(results), "bytes:", sum(size for _, size, _ in results))
    wrong = [n for n, (_, size, _) in enumerate(results) if size != 32 * n * n and n != 13]
    print("pages of the wrong size:", wrong)


asyncio.run(main())
