"""fork: the child can make a loop of its own, and nothing it does to the inherited one is felt."""

import asyncio
import concurrent.futures
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


def process_pool():
    """multiprocessing's fork start method beside a running loop."""

    async def main():
        loop = asyncio.get_running_loop()
        context = multiprocessing.get_context("fork")
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
            jobs = [loop.run_in_executor(pool, pow, 2, n) for n in range(4)]
            return await asyncio.gather(*jobs)

    assert ouroloop.run(main()) == [1, 2, 4, 8]


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
