"""A coroutine under asyncio.run: its result, its exception, and a coroutine that awaits another."""

import asyncio


async def add(x, y):
    print(f"add {x} + {y} ...")
    await asyncio.sleep(0.05)
    return x + y


async def main():
    print("result:", await add(1, 2))
    return "done"


async def fail():
    await asyncio.sleep(0)
    raise ValueError("not today")


print("asyncio.run returned", asyncio.run(main()))
try:
    asyncio.run(fail())
except ValueError as error:
    print("asyncio.run raised", repr(error))
try:
    asyncio.run(add)
except (TypeError, ValueError) as error:
    print(type(error).__name__)
