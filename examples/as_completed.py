"""as_completed: the first to finish comes first; a time limit ends the wait."""

import asyncio


async def work(n):
    await asyncio.sleep(n / 10)
    if n == 3:
        raise ValueError(f"no {n}")
    return n


async def main():
    for future in asyncio.as_completed([work(4), work(1), work(3), work(2)]):
        try:
            print("finished:", await future)
        except ValueError as error:
            print("failed:", error)

    try:
        for future in asyncio.as_completed([work(1), work(20)], timeout=0.5):
            print("in time:", await future)
    except asyncio.TimeoutError:
        print("too late")

    print("empty:", list(asyncio.as_completed([])))


asyncio.run(main())
