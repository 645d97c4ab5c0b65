"""Memory: doing the same thing again and again must not make the process grow."""

import asyncio
import contextvars
import gc
import os
import socket
import sys

import ouroloop

PAGE = os.sysconf("SC_PAGE_SIZE")
# Growth that is no leak: what the allocator keeps for itself.
SLACK = 600_000


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


def check(function, batch, rounds=4):
    """Call `function(batch)` until memory is warm, then more often: it must not grow any more.

    A leak of 64 bytes each in 10000 calls is 640 KB a round; the best of several rounds counts,
    so that a single growth of the allocator is forgiven.
    """
    for _ in range(2):
        function(batch)
    growths = []
    for _ in range(rounds):
        gc.collect()
        before = resident()
        function(batch)
        gc.collect()
        growths.append(resident() - before)
    assert min(growths) < SLACK // 2, growths
    assert sum(growths) < SLACK * rounds // 2, growths


def in_loop(coroutine_function):
    """Run a coroutine function with the batch size as its argument, all on one loop."""
    loop = ouroloop.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)

    def run(batch):
        loop.run_until_complete(coroutine_function(batch))

    return run


def the_check_itself():
    """It does find 64 bytes each."""
    kept = []
    try:
        check(lambda n: kept.extend(bytes(31) for _ in range(n)), 10_000)
    except AssertionError:
        return
    raise AssertionError("a leak was not found")


async def nothing():
    return None


async def fail():
    raise ValueError


def tasks():
    async def main(n):
        for _ in range(n):
            await asyncio.create_task(nothing(), name="a name of its own")

    check(in_loop(main), 20_000)


def failing_tasks():
    async def main(n):
        for _ in range(n):
            task = asyncio.create_task(fail())
            await asyncio.wait([task])
            task.exception()

    check(in_loop(main), 10_000)


def tasks_nobody_asks():
    async def main(n):
        for _ in range(n):
            asyncio.ensure_future(fail())  # noqa: RUF006 - to be forgotten
            await asyncio.sleep(0)

    check(in_loop(main), 10_000)


def cancelled_tasks():
    async def main(n):
        for _ in range(n):
            task = asyncio.create_task(asyncio.sleep(100))
            await asyncio.sleep(0)
            task.cancel("why")
            await asyncio.wait([task])

    check(in_loop(main), 5_000)


def abandoned_tasks():
    async def wait():
        await asyncio.get_running_loop().create_future()

    async def main(n):
        for _ in range(n):
            asyncio.ensure_future(wait())  # noqa: RUF006 - to be forgotten
            await asyncio.sleep(0)
        gc.collect()

    check(in_loop(main), 10_000)


def eager_tasks():
    if sys.version_info < (3, 12):
        print("skip: eager tasks came with 3.12")
        sys.exit()

    async def main(n):
        loop = asyncio.get_running_loop()
        for _ in range(n):
            await ouroloop.Task(nothing(), loop=loop, eager_start=True)
            await ouroloop.Task(asyncio.sleep(0), loop=loop, eager_start=True)

    check(in_loop(main), 10_000)


def futures():
    async def main(n):
        loop = asyncio.get_running_loop()
        for _ in range(n):
            future = loop.create_future()
            for _ in range(3):
                future.add_done_callback(print, context=contextvars.copy_context())
            future.remove_done_callback(print)
            loop.call_soon(future.set_result, 1)
            await future
            loop.create_future().cancel("message")
            repr(future)

    check(in_loop(main), 10_000)


def stock_types():
    async def main(n):
        loop = asyncio.get_running_loop()
        for _ in range(n):
            future = asyncio.Future(loop=loop)
            task = asyncio.Task(asyncio.wait_for(future, None), loop=loop)
            loop.call_soon(future.set_result, 1)
            await task

    check(in_loop(main), 5_000)


def call_soon():
    async def main(n):
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        for _ in range(n // 100):
            for _ in range(100):
                loop.call_soon(int)
                loop.call_soon(int, 1, context=context).cancel()
            await asyncio.sleep(0)

    check(in_loop(main), 30_000)


def call_soon_threadsafe():
    async def main(n):
        loop = asyncio.get_running_loop()
        for _ in range(n // 100):
            await loop.run_in_executor(None, threadsafe, loop)

    def threadsafe(loop):
        for _ in range(100):
            loop.call_soon_threadsafe(int)

    check(in_loop(main), 20_000)


def timers():
    async def main(n):
        loop = asyncio.get_running_loop()
        for _ in range(n // 100):
            for k in range(50):
                loop.call_later(1000 + k, int).cancel()
                loop.call_later(0, int)
            await asyncio.sleep(0)

    check(in_loop(main), 30_000)


def callback_errors():
    async def main(n):
        loop = asyncio.get_running_loop()
        for _ in range(n):
            loop.call_soon(int, "x")
            await asyncio.sleep(0)

    check(in_loop(main), 5_000)


def debug_mode():
    async def main(n):
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        for _ in range(n):
            await asyncio.create_task(nothing())
            loop.call_soon(int)
            loop.create_future()

    check(in_loop(main), 2_000)


def loops():
    def run(n):
        for _ in range(n):
            loop = ouroloop.new_event_loop()
            loop.call_soon(loop.stop)
            loop.call_later(10, print)
            loop.create_future().add_done_callback(print)
            loop.run_forever()
            loop.close()

    check(run, 300)


def runs():
    def run(n):
        for _ in range(n):
            ouroloop.run(nothing())

    check(run, 300)


def readers():
    async def main(n):
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        with a, b:
            for _ in range(n):
                done = loop.create_future()
                loop.add_reader(a, done.set_result, 1)
                loop.add_writer(a, int)
                b.send(b"x")
                await done
                a.recv(1)
                loop.remove_reader(a)
                loop.remove_writer(a)

    check(in_loop(main), 3_000)


def sock_methods():
    async def main(n):
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        a.setblocking(False)
        b.setblocking(False)
        with a, b:
            for _ in range(n):
                receiving = asyncio.ensure_future(loop.sock_recv(a, 10))
                await asyncio.sleep(0)
                await loop.sock_sendall(b, b"x")
                await receiving

    check(in_loop(main), 3_000)


def connections():
    async def handle(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    async def main(n):
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        for _ in range(n):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello\n")
            await reader.read()
            writer.close()
            await writer.wait_closed()
        server.close()
        await asyncio.sleep(0.01)

    check(in_loop(main), 300)


def aborted_connections():
    async def main(n):
        server = await asyncio.start_server(lambda r, w: w.transport.abort(), "127.0.0.1", 0)
        for _ in range(n):
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"x" * 100_000)
            writer.transport.abort()
        server.close()
        await asyncio.sleep(0.01)

    check(in_loop(main), 300)


def messages():
    """Small ones, large ones, several at once, over one connection."""

    async def handle(reader, writer):
        while data := await reader.read(1 << 17):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main(n):
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        for size in (1, 1000, 100_000):
            for _ in range(n):
                writer.writelines([b"x" * size, memoryview(b"yy")])
                writer.write(bytearray(b"z"))
                await reader.readexactly(size + 3)
        writer.close()
        server.close()
        await asyncio.sleep(0.01)

    check(in_loop(main), 300)


def servers():
    async def main(n):
        loop = asyncio.get_running_loop()
        for _ in range(n):
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
            server.close()
            await server.wait_closed()

    check(in_loop(main), 500)


def refused():
    async def main(n):
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            for _ in range(n):
                try:
                    await loop.create_connection(asyncio.Protocol, *sock.getsockname())
                except ConnectionRefusedError:
                    continue

    check(in_loop(main), 500)


def async_generators():
    async def numbers():
        yield 1
        yield 2

    async def main(n):
        for _ in range(n):
            generator = numbers()
            await generator.__anext__()
            await generator.aclose()

    check(in_loop(main), 5_000)


if __name__ == "__main__":
    if not os.path.exists("/proc/self/statm"):
        print("skip: memory is read from /proc, which this system does not have")
        sys.exit()
    if "-fsanitize" in ouroloop.build_info()["build_flags"]:
        print("skip: the address sanitizer keeps freed memory for itself")
        sys.exit()
    globals()[sys.argv[1]]()
    print("ok")
