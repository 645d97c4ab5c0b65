"""create_task: the task starts at the next pass of the loop, has a name and a result."""

import asyncio


async def work(name, delay):
    print("start", name)
    await asyncio.sleep(delay)
    print("end", name)
    return name.upper()


async def main():
    task = asyncio.create_task(work("a", 0.05), name="first")
    print("created, not started yet:", task.get_name(), task.done())
    await asyncio.sleep(0)
    print("after one pass:", task.done())
    print("all tasks:", sorted(t.get_name() for t in asyncio.all_tasks() if t is task))
    print(await task, task.done(), task.cancelled(), task.exception())
    unnamed = asyncio.create_task(work("b", 0))
    print("default name begins with Task-:", unnamed.get_name().startswith("Task-"))
    unnamed.set_name("renamed")
    print(unnamed.get_name(), await unnamed, unnamed)
    current = asyncio.current_task()
    print("current task:", current.get_coro().__name__, current.done())


asyncio.run(main())
