"""The interpreter ends with asyncio in any state: no crash, the right exit status, no hang."""

import asyncio
import atexit
import contextlib
import os
import sys
import threading
import time

import ouroloop

KEEP = []


async def wait_for_ever():
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        KEEP.append("finally")


def started_loop():
    loop = ouroloop.new_event_loop()
    KEEP.append(loop)
    return loop


def open_loop():
    started_loop()


def pending_task():
    loop = started_loop()
    KEEP.append(loop.create_task(wait_for_ever()))
    loop.run_until_complete(asyncio.sleep(0))


def pending_task_unreferenced():
    loop = started_loop()
    loop.create_task(wait_for_ever())
    loop.run_until_complete(asyncio.sleep(0))


def pending_callbacks():
    loop = started_loop()
    KEEP.append(loop.call_soon(print, "never"))
    KEEP.append(loop.call_later(10, print, "never"))
    loop.call_soon_threadsafe(print, "never")


def open_transports():
    loop = started_loop()

    async def main():
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        KEEP.append(server)
        KEEP.append(await asyncio.open_connection(*server.sockets[0].getsockname()))
        KEEP[-1][1].write(b"x" * 10_000_000)
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())


def open_reader():
    loop = started_loop()
    KEEP.extend(os.pipe())
    loop.add_reader(KEEP[-2], print)
    loop.add_signal_handler(15, print)


def async_generator():
    loop = started_loop()

    async def numbers():
        try:
            yield 1
        finally:
            KEEP.append("generator closed")

    async def main():
        generator = numbers()
        KEEP.append(generator)
        await generator.__anext__()

    loop.run_until_complete(main())


def daemon_thread():
    """A loop runs in a daemon thread while the interpreter shuts down."""
    started = threading.Event()

    def run():
        loop = started_loop()

        async def main():
            started.set()
            while True:
                await asyncio.sleep(0.001)

        loop.run_until_complete(main())

    threading.Thread(target=run, daemon=True).start()
    started.wait()


def daemon_thread_idle():
    def run():
        started_loop().run_forever()

    threading.Thread(target=run, daemon=True).start()
    while not (KEEP and KEEP[0].is_running()):
        time.sleep(0.01)


def in_atexit():
    """A program may use asyncio in an atexit function."""
    atexit.register(lambda: print(ouroloop.run(asyncio.sleep(0.01, "ran in atexit"))))


def exit_in_task():
    async def main():
        await asyncio.sleep(0)
        sys.exit(5)

    ouroloop.run(main())


def exit_in_callback():
    loop = started_loop()
    loop.call_soon(sys.exit, 6)
    loop.run_forever()


def executor_running():
    """A thread of the default executor still works: the interpreter waits for it."""
    loop = started_loop()
    loop.run_in_executor(None, time.sleep, 0.3)
    loop.run_until_complete(asyncio.sleep(0))


def closed_loop_kept():
    loop = started_loop()
    KEEP.append(loop.create_future())
    KEEP.append(loop.create_task(wait_for_ever()))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def module_global_in_cycle():
    class Holder:
        def __del__(self):
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon(print)

    holder = Holder()
    holder.loop = started_loop()
    holder.loop.call_later(10, lambda: holder)
    holder.self = holder


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
