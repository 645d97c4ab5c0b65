"""create_future, and somebody else sets its result or exception later."""

import asyncio


async def set_after(future, delay, value):
    await asyncio.sleep(delay)
    print("setting", repr(value))
    if isinstance(value, Exception):
        future.set_exception(value)
    else:
        future.set_result(value)


async def wait(name, future):
    try:
        print(name, "got", await future)
    except LookupError as error:
        print(name, "got", repr(error))


async def main():
    loop = asyncio.get_running_loop()
    for value in ("... world", KeyError("gone")):
        future = loop.create_future()
        print(future)
        setter = loop.create_task(set_after(future, 0.02, value))
        await asyncio.gather(*(wait(f"waiter {n}", future) for n in range(3)))
        await setter
        print(future)
    future = loop.create_future()
    loop.call_later(0.02, future.set_result, "from a timer")
    print(await future)


asyncio.run(main())
