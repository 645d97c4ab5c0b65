"""Lock with async with: first come, first served."""

import asyncio


async def worker(name, lock, shared):
    print(name, "wants the lock")
    async with lock:
        print(name, "has the lock")
        value = shared["value"]
        await asyncio.sleep(0.01)
        shared["value"] = value + 1
    print(name, "gave it back")


async def main():
    lock = asyncio.Lock()
    shared = {"value": 0}
    await asyncio.gather(*(worker(f"worker {n}", lock, shared) for n in range(5)))
    print("value:", shared["value"], "locked:", lock.locked())
    try:
        lock.release()
    except RuntimeError as error:
        print("RuntimeError:", error)

    event = asyncio.Event()
    condition = asyncio.Condition()
    semaphore = asyncio.Semaphore(2)

    async def limited(n):
        await event.wait()
        async with semaphore, condition:
            print("limited", n)
            condition.notify_all()

    tasks = [asyncio.create_task(limited(n)) for n in range(4)]
    await asyncio.sleep(0)
    event.set()
    await asyncio.gather(*tasks)


asyncio.run(main())
