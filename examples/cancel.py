"""cancel and cancelled: when it works, when it does not, and what a task can do about it."""

import asyncio


async def sleeper(cleanup):
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError as error:
        print("cancelled while sleeping", error.args)
        if cleanup == "suppress":
            return "stayed"
        if cleanup == "await":
            await asyncio.sleep(0.01)
            print("cleaned up")
        raise
    finally:
        print("finally")


async def main():
    for cleanup in ("raise", "await", "suppress"):
        task = asyncio.create_task(sleeper(cleanup))
        await asyncio.sleep(0)
        print("cancel:", task.cancel(), "cancelled yet:", task.cancelled())
        try:
            print("result:", await task)
        except asyncio.CancelledError:
            print("CancelledError")
        print("cancelled:", task.cancelled(), "done:", task.done(), "again:", task.cancel())

    early = asyncio.create_task(sleeper("raise"))
    early.cancel()
    await asyncio.wait([early])
    print("before its first step:", early.cancelled())

    future = asyncio.get_running_loop().create_future()
    print("future:", future.cancel("why"), future.cancelled(), future.cancel(), future)
    try:
        future.result()
    except asyncio.CancelledError as error:
        print("CancelledError", error.args)


asyncio.run(main())
