"""add_done_callback, with functools.partial for more arguments; order, removal, late callbacks."""

import asyncio
import contextvars
import functools

request = contextvars.ContextVar("request", default="none")


def finished(label, future, *, unit="points"):
    print(label, future.result(), unit, "request:", request.get())


async def work():
    await asyncio.sleep(0.01)
    return 7


async def main():
    task = asyncio.create_task(work())
    request.set("main")
    task.add_done_callback(functools.partial(finished, "first:"))
    task.add_done_callback(functools.partial(finished, "second:", unit="lines"))
    removed = functools.partial(finished, "never:")
    task.add_done_callback(removed)
    task.add_done_callback(removed)
    print("removed:", task.remove_done_callback(removed), task.remove_done_callback(removed))
    own = contextvars.Context()
    task.add_done_callback(functools.partial(finished, "empty context:"), context=own)
    print("result:", await task)
    await asyncio.sleep(0)
    print("all called")
    task.add_done_callback(functools.partial(finished, "late:"))
    print("late ones wait for the next pass")
    await asyncio.sleep(0)


asyncio.run(main())
