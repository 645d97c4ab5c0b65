"""gather: results in the order asked for, exceptions as results or raised."""

import asyncio


async def work(n, delay):
    await asyncio.sleep(delay)
    print("finished", n)
    if n < 0:
        raise ValueError(f"negative: {n}")
    return n


async def main():
    print(await asyncio.gather(work(1, 0.15), work(2, 0.1), work(3, 0.05)))
    print(await asyncio.gather(work(1, 0.1), work(-2, 0.05), return_exceptions=True))

    slow = asyncio.ensure_future(work(5, 0.2))
    try:
        await asyncio.gather(work(-4, 0.05), slow, work(-6, 0.1))
    except ValueError as error:
        print("raised first:", error, "- the others go on:", not slow.done())
    print("slow one:", await slow)

    same = work(7, 0.01)
    print(await asyncio.gather(same, same))
    print(await asyncio.gather())

    group = asyncio.gather(work(8, 1), work(9, 1))
    await asyncio.sleep(0)
    print("cancel:", group.cancel())
    try:
        await group
    except asyncio.CancelledError:
        print("cancelled:", group.cancelled())


asyncio.run(main())
