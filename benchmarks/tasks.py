"""Coroutines, tasks, futures and what asyncio builds from them."""

from __future__ import annotations

import asyncio

from harness import program, program_benchmarks


async def nothing() -> None:
    """The shortest coroutine: what remains is the cost of running it."""


@program("create a task for an empty coroutine and await it")
async def create_task(n: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(n):
        await loop.create_task(nothing())


@program("two tasks wake each other through a new future each time", step=2)
async def future_ping_pong(n: int) -> None:
    loop = asyncio.get_running_loop()
    futures = [loop.create_future(), loop.create_future()]

    async def side(me: int) -> None:
        for _ in range(n // 2):
            await futures[me]
            futures[me] = loop.create_future()
            futures[1 - me].set_result(None)

    sides = [loop.create_task(side(0)), loop.create_task(side(1))]
    futures[0].set_result(None)
    for task in sides:
        await task


@program("sleep(0) in the only task")
async def sleep0_1_task(n: int) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


@program("sleep(0) in each of 100 tasks", step=100)
async def sleep0_100_tasks(n: int) -> None:
    async def sleeper() -> None:
        for _ in range(n // 100):
            await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    for task in [loop.create_task(sleeper()) for _ in range(100)]:
        await task


@program("gather of 1000 empty coroutines, per coroutine", step=1000)
async def gather_1000(n: int) -> None:
    for _ in range(n // 1000):
        await asyncio.gather(*[nothing() for _ in range(1000)])


@program("10 tasks take one Lock in turn, per acquisition", step=10)
async def lock_10_tasks(n: int) -> None:
    lock = asyncio.Lock()

    async def taker() -> None:
        for _ in range(n // 10):
            async with lock:
                await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    for task in [loop.create_task(taker()) for _ in range(10)]:
        await task


@program("two tasks wake each other through two Events", step=2)
async def event_ping_pong(n: int) -> None:
    events = [asyncio.Event(), asyncio.Event()]

    async def side(me: int) -> None:
        for _ in range(n // 2):
            await events[me].wait()
            events[me].clear()
            events[1 - me].set()

    loop = asyncio.get_running_loop()
    sides = [loop.create_task(side(0)), loop.create_task(side(1))]
    events[0].set()
    for task in sides:
        await task


@program("one task puts, one gets, through a Queue(10), per item")
async def queue_10(n: int) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(10)

    async def putter() -> None:
        for item in range(n):
            await queue.put(item)

    task = asyncio.get_running_loop().create_task(putter())
    for _ in range(n):
        await queue.get()
    await task


BENCHMARKS = program_benchmarks(__name__)
