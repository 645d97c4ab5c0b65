"""csrc/run.c: one turn of the loop, and the GIL around it."""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import threading
import time

import network
import ouroloop
import pytest


def test_stop_before_run_runs_one_turn(loop):
    order = []
    loop.call_soon(order.append, 1)
    loop.stop()
    loop.run_forever()
    assert order == [1]


def test_stop_ends_after_the_current_turn(loop):
    order = []

    def callback():
        loop.stop()
        loop.call_soon(order.append, "next turn")

    loop.call_soon(callback)
    loop.call_soon(order.append, "same turn")
    loop.run_forever()
    assert order == ["same turn"]
    loop.stop()
    loop.run_forever()
    assert order == ["same turn", "next turn"]


def test_other_threads_run_while_the_loop_waits(loop):
    ticks = []

    def tick():
        for _ in range(10):
            ticks.append(len(woken))
            time.sleep(0.001)
        loop.call_soon_threadsafe(loop.stop)

    def wake_up():
        woken.append("by itself")
        loop.stop()

    woken = []
    timer = loop.call_later(20, wake_up)
    thread = threading.Thread(target=tick)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    timer.cancel()
    assert ticks == [0] * 10


def test_threadsafe_call_wakes_a_waiting_loop(loop):
    start = time.monotonic()
    threading.Timer(0.05, loop.call_soon_threadsafe, [loop.stop]).start()
    loop.call_later(30, loop.stop).cancel()
    loop.run_forever()
    assert time.monotonic() - start < 10


def test_threadsafe_calls_from_many_threads_all_arrive_in_order(loop):
    arrived = {}
    threads = 4
    each = 2000

    def post(name):
        for number in range(each):
            loop.call_soon_threadsafe(arrived[name].append, number)
        loop.call_soon_threadsafe(finished.append, name)

    def check():
        if len(finished) == threads:
            loop.stop()
        else:
            loop.call_later(0.001, check)

    finished = []
    workers = []
    for name in range(threads):
        arrived[name] = []
        workers.append(threading.Thread(target=post, args=(name,)))
    for worker in workers:
        worker.start()
    check()
    loop.run_forever()
    for worker in workers:
        worker.join()
    assert all(numbers == list(range(each)) for numbers in arrived.values())


def test_input_is_seen_while_callbacks_keep_the_loop_busy(loop):
    left, right = socket.socketpair()
    seen = []

    def spin():
        if not seen:
            loop.call_soon(spin)

    def readable():
        seen.append(right.recv(10))
        loop.stop()

    loop.add_reader(right, readable)
    loop.call_soon(spin)
    loop.call_later(0.01, left.send, b"x")
    loop.run_forever()
    loop.remove_reader(right)
    left.close()
    right.close()
    assert seen == [b"x"]


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["call_soon", "call_later", "done callback", "task"])
def test_fatal_exceptions_leave_run_forever(loop, exception, where):
    def leave(*_):
        raise exception

    async def leave_in_task():
        raise exception

    if where == "call_soon":
        loop.call_soon(leave)
    elif where == "call_later":
        loop.call_later(0, leave)
    elif where == "done callback":
        future = loop.create_future()
        future.add_done_callback(leave)
        future.set_result(None)
    else:
        task = loop.create_task(leave_in_task())
    with pytest.raises(exception):
        loop.run_forever()
    assert not loop.is_running()
    if where == "task":
        assert type(task.exception()) is exception


def test_loops_do_not_nest(loop):
    async def main():
        other = ouroloop.new_event_loop()
        try:
            with pytest.raises(RuntimeError, match="while another loop is running"):
                other.run_forever()
            with pytest.raises(RuntimeError, match="already running"):
                loop.run_forever()
        finally:
            other.close()
        return asyncio.get_running_loop() is loop

    assert loop.run_until_complete(main())


def test_close_a_running_loop_is_refused(loop):
    async def main():
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            loop.close()

    loop.run_until_complete(main())


def test_collector_in_the_middle_of_a_batch(loop):
    order = []

    def collect(number):
        gc.collect()
        order.append(number)

    for number in range(20):
        loop.call_soon(collect, number)
        loop.call_later(0, collect, number)
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert sorted(order) == sorted([*range(20), *range(20)])


def test_run_again_after_each_end(loop):
    for number in range(50):
        assert loop.run_until_complete(asyncio.sleep(0, number)) == number


def test_a_loop_per_thread():
    results = []

    async def main(number):
        await asyncio.sleep(0.001)
        return number

    threads = [
        threading.Thread(target=lambda n=number: results.append(ouroloop.run(main(n))))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(8))


def test_run_once_is_one_turn(loop):
    order = []
    loop.call_soon(order.append, 1)
    loop._run_once()
    assert order == [1]


class Nesting(ouroloop.Loop):
    """Runs within itself, as loops do that nest_asyncio has patched: turn by turn, each of which
    asks the selector."""

    def _run_once(self):
        self._process_events(self._selector.select(0 if self._stopping else None))

    def run_until_complete(self, future):
        future = asyncio.ensure_future(future, loop=self)
        outer = asyncio._get_running_loop(), self._thread_id
        asyncio._set_running_loop(self)
        self._thread_id = threading.get_ident()
        try:
            while not future.done():
                self._run_once()
        finally:
            asyncio._set_running_loop(outer[0])
            self._thread_id = outer[1]
        return future.result()


@pytest.fixture
def nesting():
    loop = Nesting()
    yield loop
    loop.close()


async def waits():
    await asyncio.sleep(0.001)
    return asyncio.current_task()


def test_a_loop_within_its_own_tasks(nesting):
    async def nested(depth):
        task = asyncio.current_task()
        inner = nesting.run_until_complete(nested(depth - 1) if depth else waits())
        assert inner is not task
        assert asyncio.current_task() is task
        await asyncio.sleep(0)
        return task

    async def fails():
        await asyncio.sleep(0)
        raise KeyError("inner")

    async def main():
        assert len(set(await asyncio.gather(nested(10), nested(3), waits()))) == 3
        task = asyncio.current_task()
        with pytest.raises(KeyError, match="inner"):
            nesting.run_until_complete(fails())
        assert asyncio.current_task() is task

    nesting.run_until_complete(main())
    assert asyncio.current_task(nesting) is None


def test_a_loop_within_tasks_that_are_not_its_own(nesting):
    """As nest_asyncio has them: written in Python."""

    def factory(loop, coroutine, **keywords):
        made.append(asyncio.tasks._PyTask(coroutine, loop=loop, **keywords))
        return made[-1]

    async def main():
        nesting.run_until_complete(waits())
        assert current_task() is made[0]
        assert len(made) == 2

    made = []
    # From 3.14 on they have a register of their own.
    current_task = getattr(asyncio.tasks, "_py_current_task", asyncio.current_task)

    nesting.set_task_factory(factory)
    nesting.run_until_complete(main())


def test_a_loop_within_its_own_callbacks(nesting):
    async def main():
        done = nesting.create_future()
        nesting.call_soon(lambda: done.set_result(nesting.run_until_complete(waits())))
        assert isinstance(await done, asyncio.Task)
        assert asyncio.current_task() is not None

    nesting.run_until_complete(main())


def test_what_was_written_is_sent_before_a_turn_within(nesting):
    async def main():
        async with two_ends(nesting) as ((transport, _), (_, peer)):
            transport.write(b"data")
            while not peer.data:
                nesting._run_once()
            transport.write(b" and more")
            await network.until(lambda: peer.data == b"data and more")

    nesting.run_until_complete(main())


def test_nobody_else_selects(loop):
    """As test tools with clocks of their own would, whose time would stand still for ever."""
    with pytest.raises(AttributeError, match="read-only"):
        loop._selector.select = lambda timeout: []


def test_select_waits_so_long_and_runs_what_is_due(loop):
    ran = []
    late = loop.call_later(network.TIMEOUT, ran.append, "late")
    assert loop._selector.select(0) == []
    assert loop._selector.select(0.001) == []
    loop.call_later(0.001, ran.append, "soon")
    while not ran:
        assert loop._selector.select() == []
    assert ran == ["soon"]
    late.cancel()


def test_a_signal_ends_a_turn_by_hand(nesting):
    async def main():
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            nesting.run_until_complete(asyncio.sleep(network.TIMEOUT))
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    nesting.run_until_complete(main())
    nesting.close()
    assert signal.set_wakeup_fd(-1) == -1


def test_no_turn_while_it_polls(nesting):
    """A signal handler may run there."""

    async def main():
        done = nesting.create_future()

        def handler(*_):
            with pytest.raises(RuntimeError, match="is waiting for events already"):
                nesting._run_once()
            done.set_result("handled")

        before = signal.signal(signal.SIGUSR1, handler)
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        try:
            assert await done == "handled"
        finally:
            signal.signal(signal.SIGUSR1, before)

    nesting.run_until_complete(main())


@contextlib.asynccontextmanager
async def two_ends(loop):
    """Two connected stream transports, with their Recorders."""
    socks = socket.socketpair()
    made = []
    for sock in socks:
        sock.setblocking(False)
        made.append(await loop.create_connection(network.Recorder, sock=sock))
    yield made
    for transport, _ in made:
        transport.abort()
    await asyncio.sleep(0)


async def stream_write(loop, then):
    async with two_ends(loop) as ((transport, _), (_, peer)):
        await then(lambda: transport.write(b"data"), lambda: peer.data)


async def stream_write_eof(loop, then):
    async with two_ends(loop) as ((transport, _), (_, peer)):
        await then(transport.write_eof, lambda: "eof" in peer.calls)


async def stream_close(loop, then):
    async with two_ends(loop) as ((transport, _), (_, peer)):
        await then(transport.close, lambda: "eof" in peer.calls, turns=4)


async def stream_write_to_a_task(loop, then):
    """The answer to the answer."""

    async def answer():
        await loop.sock_sendall(server, await loop.sock_recv(server, 10))

    async def ask():
        await loop.sock_sendall(client, b"data")
        got.append(await loop.sock_recv(client, 10))

    got = []
    client, server = socket.socketpair()
    with client, server:
        client.setblocking(False)
        server.setblocking(False)
        tasks = [loop.create_task(answer())]
        await then(lambda: tasks.append(loop.create_task(ask())), lambda: got, turns=8)
        await asyncio.gather(*tasks)


async def datagram(loop, then):
    peer = network.Recorder()
    peer.datagram_received = lambda data, address: peer.calls.append("datagram")
    receiver, _ = await loop.create_datagram_endpoint(lambda: peer, local_addr=("127.0.0.1", 0))
    address = receiver.get_extra_info("sockname")
    sender, _ = await loop.create_datagram_endpoint(network.Recorder, remote_addr=address)
    await then(lambda: sender.sendto(b"data"), lambda: "datagram" in peer.calls)
    sender.abort()
    receiver.abort()
    await asyncio.sleep(0)


async def pipe(loop, then):
    reading, writing = os.pipe()
    peer = network.Recorder()
    receiver, _ = await loop.connect_read_pipe(lambda: peer, open(reading, "rb", 0))
    sender, _ = await loop.connect_write_pipe(network.Recorder, open(writing, "wb", 0))
    await then(lambda: sender.write(b"data"), lambda: peer.data)
    sender.abort()
    receiver.close()
    await asyncio.sleep(0)


async def watch(loop, then):
    called = []
    a, b = socket.socketpair()
    with a, b:
        await then(lambda: loop.add_writer(a, called.append, 1), lambda: called)
        loop.remove_writer(a)


async def watch_on(loop, then):
    """The callback is called in each turn."""
    called = []
    a, b = socket.socketpair()
    with a, b:
        await then(lambda: loop.add_writer(a, called.append, 1), lambda: len(called) > 3, turns=5)
        loop.remove_writer(a)


async def send_in_a_callback(loop, then):
    """By a socket of which the loop does not know."""
    called = []
    a, b = socket.socketpair()
    with a, b:
        loop.add_reader(b, called.append, 1)
        await then(lambda: loop.add_writer(a, a.send, b"data"), lambda: called)
        loop.remove_writer(a)
        loop.remove_reader(b)


@pytest.mark.parametrize("loop_type", [asyncio.SelectorEventLoop, ouroloop.Loop])
@pytest.mark.parametrize(
    "way",
    [
        stream_write,
        stream_write_eof,
        stream_close,
        stream_write_to_a_task,
        datagram,
        pipe,
        watch,
        watch_on,
        send_in_a_callback,
    ],
)
def test_what_is_sent_arrives_in_the_next_turn_of_a_busy_loop(loop_type, way):
    """A loop with work ready does not look for I/O in each turn, but does after it sent."""

    async def then(act, arrived, turns=3):
        # Turns without input, so that the loop has just looked.
        for _ in range(3):
            await asyncio.sleep(0)
        act()
        for _ in range(turns):
            await asyncio.sleep(0)
        assert arrived()

    loop = loop_type()
    try:
        loop.run_until_complete(way(loop, then))
    finally:
        loop.close()
