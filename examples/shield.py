"""shield: cancelling the waiter leaves the shielded work running."""

import asyncio


async def work():
    await asyncio.sleep(0.1)
    print("the work is done")
    return 42


async def waiter(inner):
    try:
        return await asyncio.shield(inner)
    except asyncio.CancelledError:
        print("the waiter is cancelled, the work:", "done" if inner.done() else "going on")
        raise


async def main():
    inner = asyncio.ensure_future(work())
    task = asyncio.create_task(waiter(inner))
    await asyncio.sleep(0.01)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        print("waiter:", task.cancelled(), "inner:", inner.cancelled())
    print(await inner)

    outer = asyncio.shield(inner)
    print("a finished one is returned as it is:", outer is inner)

    inner = asyncio.ensure_future(work())
    outer = asyncio.shield(inner)
    await asyncio.sleep(0)
    inner.cancel()
    try:
        await outer
    except asyncio.CancelledError:
        print("cancelling the work itself:", inner.cancelled(), outer.cancelled())


asyncio.run(main())
