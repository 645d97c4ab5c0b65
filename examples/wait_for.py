"""wait_for: with a timeout that is met, with one that is not, and with None."""

import asyncio


async def work(delay):
    try:
        await asyncio.sleep(delay)
    except asyncio.CancelledError:
        print("cancelled by the timeout")
        raise
    return f"slept {delay}"


async def stubborn():
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        return "finished all the same"


async def main():
    print(await asyncio.wait_for(work(0.05), timeout=5))
    print(await asyncio.wait_for(work(0.05), timeout=None))
    for timeout in (0.05, 0):
        task = asyncio.ensure_future(work(10))
        await asyncio.sleep(0)
        try:
            await asyncio.wait_for(task, timeout)
        except asyncio.TimeoutError as error:
            print("TimeoutError", error.args, "cancelled:", task.cancelled())
    task = asyncio.ensure_future(stubborn())
    try:
        print(await asyncio.wait_for(task, 0.05))
    except asyncio.TimeoutError:
        print("TimeoutError", task.result())


asyncio.run(main())
