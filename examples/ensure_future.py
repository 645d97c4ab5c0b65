"""ensure_future of a coroutine, of a future, of an awaitable, and of something else."""

import asyncio


async def coroutine():
    await asyncio.sleep(0)
    return "from the coroutine"


class Awaitable:
    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return "from the awaitable"


async def main():
    task = asyncio.ensure_future(coroutine())
    print(type(task).__name__, isinstance(task, asyncio.Task), await task)
    print("the same task again:", asyncio.ensure_future(task) is task)

    future = asyncio.get_running_loop().create_future()
    print("the same future:", asyncio.ensure_future(future) is future)
    future.set_result("from the future")
    print(await asyncio.ensure_future(future))

    wrapped = asyncio.ensure_future(Awaitable())
    print(isinstance(wrapped, asyncio.Task), await wrapped)

    for wrong in (1, coroutine):
        try:
            asyncio.ensure_future(wrong)
        except TypeError as error:
            print("TypeError:", error)


asyncio.run(main())
