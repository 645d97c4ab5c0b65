"""wait: for all, for the first to finish, for the first to fail, and no longer than a timeout."""

import asyncio


async def work(n):
    await asyncio.sleep(abs(n) / 10)
    if n < 0:
        raise ValueError(n)
    return n


def names(tasks):
    return sorted(task.get_name() for task in tasks)


async def wait(numbers, **options):
    tasks = [asyncio.create_task(work(n), name=f"task {n}") for n in numbers]
    done, pending = await asyncio.wait(tasks, **options)
    print(options, "done:", names(done), "pending:", names(pending))
    for task in pending:
        task.cancel()
    for task in sorted(done, key=asyncio.Task.get_name):
        print("   ", task.get_name(), "->", task.exception() or task.result())
    if pending:
        await asyncio.wait(pending)
        print("    cancelled:", names(task for task in pending if task.cancelled()))


async def main():
    await wait([1, 2, 3], return_when=asyncio.ALL_COMPLETED)
    await wait([1, 5, 6], return_when=asyncio.FIRST_COMPLETED)
    await wait([1, -3, 9], return_when=asyncio.FIRST_EXCEPTION)
    await wait([1, 2], return_when=asyncio.FIRST_EXCEPTION)
    await wait([1, 9], timeout=0.4)
    try:
        await asyncio.wait([])
    except ValueError as error:
        print("ValueError:", error)


asyncio.run(main())
