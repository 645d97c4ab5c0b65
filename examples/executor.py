"""run_in_executor: blocking functions in threads beside a running coroutine."""

import asyncio
import concurrent.futures
import threading
import time


def blocking(n):
    time.sleep(0.3)
    return n, threading.current_thread() is threading.main_thread()


def fail():
    raise OSError(5, "from the thread")


async def ticker(ticks):
    for n in range(3):
        print("tick", n)
        ticks.append(n)
        await asyncio.sleep(0.02)


async def main():
    loop = asyncio.get_running_loop()
    ticks = []
    future = loop.run_in_executor(None, blocking, 1)
    await ticker(ticks)
    print("ticks before the thread was done:", len(ticks), future.done())
    print("default executor:", await future)

    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        futures = [loop.run_in_executor(pool, blocking, n) for n in range(4)]
        print("own pool:", await asyncio.gather(*futures))
        try:
            await loop.run_in_executor(pool, fail)
        except OSError as error:
            print("raised:", repr(error))
    print("to_thread:", await asyncio.to_thread(blocking, 9))


asyncio.run(main())
