"""Plain callbacks: soon, later, and from another thread."""

from __future__ import annotations

import asyncio
import threading

from harness import program, program_benchmarks

TIMERS = 10_000


def ignore() -> None:
    """A callback with nothing to do."""


@program("call_soon from the callback before, one per turn")
async def call_soon_chain(n: int) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    left = n

    def link() -> None:
        nonlocal left
        left -= 1
        if left > 0:
            loop.call_soon(link)
        else:
            done.set_result(None)

    loop.call_soon(link)
    await done


@program("call_soon, 1000 callbacks per turn", step=1000)
async def call_soon_batch(n: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(n // 1000):
        for _ in range(1000):
            loop.call_soon(ignore)
        await asyncio.sleep(0)


@program("call_later and cancel, 10 000 timers at a time", step=TIMERS)
async def call_later_cancelled(n: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(n // TIMERS):
        timers = [loop.call_later(60 + i % 97, ignore) for i in range(TIMERS)]
        for timer in timers:
            timer.cancel()
        del timers
        await asyncio.sleep(0)


@program("call_later until it fires, 10 000 timers at a time", step=TIMERS)
async def call_later_fired(n: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(n // TIMERS):
        done = loop.create_future()
        # 7919 is prime: the deadlines, all within 10 ms, arrive out of order.
        for i in range(TIMERS):
            loop.call_later((i * 7919 % TIMERS) * 1e-6, ignore)
        loop.call_later(0.0101, done.set_result, None)
        await done


@program("call_soon_threadsafe by another thread, both threads' CPU")
async def call_soon_threadsafe(n: int) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def caller() -> None:
        for _ in range(n - 1):
            loop.call_soon_threadsafe(ignore)
        loop.call_soon_threadsafe(done.set_result, None)

    thread = threading.Thread(target=caller)
    thread.start()
    await done
    thread.join()


BENCHMARKS = program_benchmarks(__name__)
