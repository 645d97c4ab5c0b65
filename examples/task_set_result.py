"""A task gets its result from its coroutine alone: set_result and set_exception are refused."""

import asyncio


async def work():
    await asyncio.sleep(0)
    return "mine"


async def main():
    task = asyncio.create_task(work())
    for setter, value in ((task.set_result, 1), (task.set_exception, ValueError())):
        try:
            setter(value)
        except RuntimeError as error:
            print("RuntimeError:", error)
    print(await task)
    future = asyncio.get_running_loop().create_future()
    future.set_result(1)
    for setter, value in ((future.set_result, 2), (future.set_exception, ValueError())):
        try:
            setter(value)
        except asyncio.InvalidStateError as error:
            print("InvalidStateError:", error)
    print(await future)


asyncio.run(main())
