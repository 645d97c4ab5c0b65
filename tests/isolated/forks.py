"""fork: the child can make a loop of its own, and nothing it does to the inherited one is felt."""

import asyncio
import concurrent.futures
import gc
import multiprocessing
import os
import socket
import sys

import ouroloop


def in_child(function):
    """Run the function in a forked child; its exit status must be 0."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with status {status}"


async def work():
    """Uses a timer, a thread, a socket and a task."""
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hello\n")
    line = await reader.readline()
    writer.close()
    server.close()
    await asyncio.sleep(0.01)
    assert await loop.run_in_executor(None, lambda: 5) == 5
    return line


async def echo(reader, writer):
    writer.write(await reader.readline())
    writer.close()


def child_with_a_new_loop():
    assert ouroloop.run(work()) == b"hello\n"


def reader_fires(loop, sender, receiver):
    """The loop's reader on `receiver`, registered before the fork, still works."""
    sender.send(b"x")
    loop.call_later(5, loop.stop)
    loop.run_forever()
    return receiver.recv(10, socket.MSG_DONTWAIT) == b"x"


def idle():
    """Fork beside a loop that does not run; the child closes its copy and makes another."""
    loop = ouroloop.new_event_loop()
    a, b = socket.socketpair()
    loop.add_reader(b, loop.stop)
    loop.call_soon(loop.stop)
    loop.run_forever()

    def child():
        loop.close()
        child_with_a_new_loop()

    in_child(child)
    assert reader_fires(loop, a, b)
    loop.remove_reader(b)
    loop.close()


def child_exits_normally():
    """The child's interpreter shuts down with the inherited loop still open."""
    loop = ouroloop.new_event_loop()
    a, b = socket.socketpair()
    loop.add_reader(b, loop.stop)
    loop.call_soon(loop.stop)
    loop.run_forever()
    pid = os.fork()
    if pid == 0:
        sys.exit(7)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7, status
    assert reader_fires(loop, a, b)
    loop.remove_reader(b)
    loop.close()


def child_removes_readers():
    """Removing a reader in the child must not remove the parent's."""
    loop = ouroloop.new_event_loop()
    a, b = socket.socketpair()
    loop.add_reader(b, loop.stop)
    loop.call_soon(loop.stop)
    loop.run_forever()

    def child():
        try:
            loop.remove_reader(b)
        except RuntimeError:
            return  # Refusing is as good.

    in_child(child)
    assert reader_fires(loop, a, b)
    loop.remove_reader(b)
    loop.close()


def running():
    """Fork inside a running loop."""

    async def main():
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        a.setblocking(False)
        b.setblocking(False)
        waiting = asyncio.ensure_future(loop.sock_recv(b, 10))
        await asyncio.sleep(0.01)

        def child():
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                child_with_a_new_loop()
            else:
                raise AssertionError("the child believes that a loop runs")

        in_child(child)
        a.send(b"x")
        assert await asyncio.wait_for(waiting, 5) == b"x"
        assert await work() == b"hello\n"

    ouroloop.run(main())


def inherited_loop_does_not_run():
    """Running the inherited loop in the child is refused, the parent's events stay the parent's."""
    loop = ouroloop.new_event_loop()
    a, b = socket.socketpair()
    loop.add_reader(b, loop.stop)
    loop.call_soon(loop.stop)
    loop.run_forever()

    def child():
        coroutine = asyncio.sleep(0)
        try:
            loop.run_until_complete(coroutine)
        except RuntimeError:
            return
        finally:
            coroutine.close()
        raise AssertionError("the inherited loop ran")

    in_child(child)
    assert reader_fires(loop, a, b)
    loop.remove_reader(b)
    loop.close()


def square_on_a_loop(number):
    """Work of a child process: it runs a loop of its own."""

    async def main():
        await asyncio.sleep(0)
        return number * number

    return ouroloop.run(main())


def send_square(connection, number):
    connection.send(square_on_a_loop(number))
    connection.close()


def use_multiprocessing(method):
    """Process, Pool and ProcessPoolExecutor beside a running loop whose readers go on."""
    context = multiprocessing.get_context(method)

    def with_processes():
        with context.Pool(2) as pool:
            squares = pool.map(square_on_a_loop, range(4))
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=send_square, args=(sending, 5))
        process.start()
        squares.append(receiving.recv())
        process.join(20)
        return squares, process.exitcode

    async def main():
        loop = asyncio.get_running_loop()
        a, b = socket.socketpair()
        seen = []
        loop.add_reader(b, lambda: seen.append(b.recv(10)))
        assert with_processes() == ([0, 1, 4, 9, 25], 0)
        if method != "fork":
            # A process forked by a thread of an executor ends with status 1, with any loop.
            assert await loop.run_in_executor(None, with_processes) == ([0, 1, 4, 9, 25], 0)
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            jobs = [loop.run_in_executor(pool, square_on_a_loop, n) for n in range(4)]
            assert await asyncio.wait_for(asyncio.gather(*jobs), 20) == [0, 1, 4, 9]
        a.send(b"x")
        while not seen:
            await asyncio.sleep(0.001)
        assert seen == [b"x"]
        loop.remove_reader(b)
        a.close()
        b.close()

    ouroloop.run(asyncio.wait_for(main(), 25))


def multiprocessing_fork():
    use_multiprocessing("fork")


def multiprocessing_forkserver():
    use_multiprocessing("forkserver")


def multiprocessing_spawn():
    use_multiprocessing("spawn")


def server_and_connection():
    """A server and a connection go on in the parent when the child drops and closes all."""

    async def main():
        loop = asyncio.get_running_loop()

        async def echo(reader, writer):
            while data := await reader.read(100):
                writer.write(data)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()[:2]
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"

        def child():
            writer.close()
            server.close()
            loop.call_soon(print, "not in the child")
            gc.collect()
            child_with_a_new_loop()

        in_child(child)
        writer.write(b"after")
        assert await asyncio.wait_for(reader.readexactly(5), 5) == b"after"
        other_reader, other = await asyncio.open_connection(*address)
        other.write(b"new")
        assert await asyncio.wait_for(other_reader.readexactly(3), 5) == b"new"
        for stream in writer, other:
            stream.close()
            await stream.wait_closed()
        server.close()
        await server.wait_closed()

    ouroloop.run(main())


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
