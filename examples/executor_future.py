"""What run_in_executor returns: printed pending and finished, its methods, its errors."""

import asyncio
import threading


async def main():
    loop = asyncio.get_running_loop()
    go = threading.Event()
    future = loop.run_in_executor(None, go.wait, 10)
    print(future)
    print([name for name in dir(future) if not name.startswith("_")])
    print(asyncio.isfuture(future), isinstance(future, asyncio.Future), future.get_loop() is loop)
    for question in (future.result, future.exception):
        try:
            question()
        except asyncio.InvalidStateError as error:
            print(f"InvalidStateError: {error}")
    print("done:", future.done())
    go.set()
    await future
    print(future, future.result(), future.exception(), future.done())

    failed = loop.run_in_executor(None, int, "x")
    await asyncio.wait([failed])
    print(failed)
    try:
        failed.result()
    except ValueError as error:
        print(f"ValueError: {error}")


asyncio.run(main())
