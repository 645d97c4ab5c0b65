"""Two tasks overlap: the shorter one ends while the longer one is still asleep."""

import asyncio
import time


async def say_after(delay, what):
    print("start", what)
    await asyncio.sleep(delay)
    print("end", what)
    return what


async def main():
    slow = asyncio.create_task(say_after(0.2, "hello"))
    fast = asyncio.create_task(say_after(0.1, "world"))
    print(await slow, await fast)

    started = time.monotonic()
    print(await say_after(0.1, "one"), await say_after(0.1, "after the other"))
    print("at least 0.2 s:", time.monotonic() - started >= 0.2)


asyncio.run(main())
