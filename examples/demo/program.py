"""An ordinary asyncio program: an aiohttp server, a client that downloads from it, and parts
that do little else than switch tasks. It knows nothing of the loop it runs on.

Every part returns what it found out, so that runs on different loops can be compared. One
JSON object per line goes to stdout: {"part", "done"} under way, {"part", "wall", "cpu",
"digest"} at its end. The argument scales the amount of work (1 by default).
"""

import asyncio
import hashlib
import json
import random
import sys
import time
from asyncio import run

from aiohttp import ClientSession, TCPConnector, web

SCALE = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0


def report(part, **figures):
    print(json.dumps({"part": part, **figures}), flush=True)


def scaled(count):
    return max(20, int(count * SCALE))


# Downloads: pages of 100 bytes to 100 kilobytes, mostly small, as on the web.


def make_pages(count):
    chance = random.Random(2024)
    material = chance.randbytes(1 << 20)
    pages = []
    for _ in range(count):
        size = int(100 * 1000 ** chance.random())
        start = chance.randrange(len(material) - size)
        pages.append(material[start : start + size])
    return pages


async def download(part):
    pages = make_pages(scaled(6000))
    expected = [hashlib.sha256(page).hexdigest() for page in pages]

    async def serve_page(request):
        return web.Response(body=pages[int(request.match_info["number"])])

    app = web.Application()
    app.router.add_get("/page/{number}", serve_page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]

    received = {}
    numbers = iter(range(len(pages)))

    async def download_some(session):
        for number in numbers:
            async with session.get(f"http://127.0.0.1:{port}/page/{number}") as response:
                body = await response.read()
            received[number] = hashlib.sha256(body).hexdigest()
            if received[number] != expected[number]:
                raise ValueError(f"page {number} arrived damaged, {len(body)} bytes")
            if len(received) % 100 == 0:
                report(part, done=len(received) / len(pages))

    async with ClientSession(connector=TCPConnector(limit=40)) as session:
        await asyncio.gather(*(download_some(session) for _ in range(40)))
    await runner.cleanup()
    return [received[number] for number in range(len(pages))]


# Tasks: a tree of them, each waiting for the three it started.


async def tasks(part):
    async def node(depth, name):
        if depth == 0:
            return name
        children = [asyncio.create_task(node(depth - 1, 3 * name + i)) for i in range(3)]
        return sum([await child for child in children]) % 1_000_003

    results = []
    trees = scaled(200)
    for number in range(trees):
        results.append(await node(6, number))
        report(part, done=(number + 1) / trees)
    return results


# Futures: messages handed round a ring of tasks, and gather's over short coroutines.


async def futures(part):
    loop = asyncio.get_running_loop()
    laps, size = scaled(4000), 50
    cells = [loop.create_future() for _ in range(size)]

    async def stand(place):
        total = 0
        for lap in range(laps):
            value = await cells[place]
            cells[place] = loop.create_future()
            total += value
            cells[(place + 1) % size].set_result(value + 1)
            if place == 0 and lap % 400 == 0:
                report(part, done=lap / laps)
        return total

    async def square(number):
        return number * number

    ring = [asyncio.create_task(stand(place)) for place in range(size)]
    cells[0].set_result(0)
    totals = await asyncio.gather(*ring)
    squares = await asyncio.gather(*(square(number) for number in range(scaled(50_000))))
    return [totals, sum(squares)]


# Locks and queues: workers draw jobs from a bounded queue and update one shared account.


async def locks_and_queues(part):
    jobs: asyncio.Queue = asyncio.Queue(100)
    ranked: asyncio.PriorityQueue = asyncio.PriorityQueue()
    lock, finished = asyncio.Lock(), asyncio.Event()
    turnstile = asyncio.Semaphore(4)
    account = {"sum": 0, "jobs": 0}
    count = scaled(100_000)

    async def work():
        while (job := await jobs.get()) is not None:
            async with turnstile, lock:
                account["sum"] += job * job % 97
                account["jobs"] += 1
                await asyncio.sleep(0)
            if job % 10 == 0:
                await ranked.put((-job, "tenth"))
            if account["jobs"] % 4000 == 0:
                report(part, done=account["jobs"] / count)
            if account["jobs"] == count:
                finished.set()

    workers = [asyncio.create_task(work()) for _ in range(10)]
    for job in range(count):
        await jobs.put(job)
    await finished.wait()
    for _ in workers:
        await jobs.put(None)
    await asyncio.gather(*workers)
    first = [await ranked.get() for _ in range(ranked.qsize())]
    return [account, len(first), first[:5]]


# Timers: requests with a time limit, of which every tenth misses it, and many call_later.


async def timers(part):
    loop = asyncio.get_running_loop()

    async def request(number):
        late = number % 10 == 0
        try:
            # An hour against 20 ms: no machine is slow enough to turn that round.
            await asyncio.wait_for(asyncio.sleep(3600 if late else 0.001), 0.02 if late else 3600)
        except asyncio.TimeoutError:
            return "late"
        return "in time"

    answers = []
    rounds = scaled(40)
    for number in range(rounds):
        fired = []
        handles = [loop.call_later(0.001 * (i % 20), fired.append, i) for i in range(2000)]
        for handle in handles[::2]:
            handle.cancel()
        answers += await asyncio.gather(*(request(i) for i in range(500)))
        while len(fired) < 1000:
            await asyncio.sleep(0.001)
        answers.append(sorted(fired))
        report(part, done=(number + 1) / rounds)
    return answers


async def main():
    for part in (download, tasks, futures, locks_and_queues, timers):
        name = part.__name__.replace("_", " ")
        report(name, done=0)
        wall, cpu = time.perf_counter(), time.process_time()
        found = await part(name)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        digest = hashlib.sha256(json.dumps(found).encode()).hexdigest()
        report(name, wall=wall, cpu=cpu, digest=digest)


run(main())
