"""Random programs of sock_*() calls, on stock asyncio and on ouroloop: the same results.

A program is a kind of connection and a list of steps; between two steps the loop turns until
nothing happens any more. Only one call waits in each direction, and a socket is closed when none
does: what stock asyncio does otherwise is to wait for ever.
"""

import asyncio
import random
import socket

import ouroloop
import pytest
from outcome import stock_loop

pytestmark = pytest.mark.usefixtures("frozen_garbage")

PROGRAMS = 60
STEPS = 25
SIZES = (1, 7, 100, 5000, 70000, 700000)
NAMES = (
    "recv",
    "recv_into",
    "sendall",
    "cancel",
    "peer_send",
    "peer_read",
    "peer_shutdown",
    "peer_close",
    "shutdown",
    "add_reader",
    "remove_reader",
    "add_writer",
    "remove_writer",
)
WEIGHTS = (9, 4, 7, 3, 8, 8, 0.4, 0.3, 0.3, 1, 1, 1, 1)


class Machine:
    """One run of a program; `trace` is what can be seen of it."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.trace = []
        self.calls = {}
        self.callbacks = set()

    def run(self, new_event_loop):
        loop = self.loop = new_event_loop()
        loop.set_exception_handler(lambda loop, context: self.trace.append(str(context)))
        try:
            loop.run_until_complete(asyncio.wait_for(self.main(), 30))
        finally:
            loop.close()
        return self.trace

    async def main(self):
        self.ours, self.peer = await self.connect()
        with self.ours, self.peer:
            for number in range(STEPS):
                name = self.random.choices(NAMES, WEIGHTS)[0]
                size = self.random.choice(SIZES)
                try:
                    what = getattr(self, name)(size)
                    if asyncio.iscoroutine(what):
                        what = await what
                except OSError as error:
                    what = type(error).__name__
                await self.quiet()
                done = {
                    key: self.outcome(key)
                    for key, task in sorted(self.calls.items())
                    if task.done()
                }
                self.trace.append((number, name, size, what, done))
            for key in list(self.calls):
                self.calls[key].cancel()
            await asyncio.wait([self.loop.create_task(asyncio.sleep(0)), *self.calls.values()])
            self.loop.remove_reader(self.ours)
            self.loop.remove_writer(self.ours)

    async def connect(self):
        if self.random.random() < 0.5:
            pair = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                client = socket.create_connection(listener.getsockname())
                pair = client, listener.accept()[0]
        for sock in pair:
            sock.setblocking(False)
            if sock.family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # What the kernel takes must not depend on how the memory is doing.
        pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20000)
        pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20000)
        return pair

    async def quiet(self):
        for _ in range(3):
            await asyncio.sleep(0.0004)
        for _ in range(6):
            await asyncio.sleep(0)

    def outcome(self, key):
        task = self.calls.pop(key)
        if task.cancelled():
            return "cancelled"
        if task.exception() is not None:
            return type(task.exception()).__name__
        return task.result()

    def start(self, key, call):
        if key in self.calls or key in self.callbacks:
            call.close()
            return "busy"
        self.calls[key] = self.loop.create_task(call)
        return "started"

    def recv(self, size):
        return self.start("in", self.loop.sock_recv(self.ours, size))

    def recv_into(self, size):
        return self.start("in", self.loop.sock_recv_into(self.ours, bytearray(size)))

    def sendall(self, size):
        # What certainly goes at once or, but by TCP it is a matter of time, does not.
        if "out" not in self.calls:
            self.drain()
        if size >= 70000:
            size = 700000 if self.ours.family == socket.AF_UNIX else 5000
        return self.start("out", self.loop.sock_sendall(self.ours, bytes(size)))

    def drain(self):
        received = 0
        try:
            while data := self.peer.recv(1 << 20):
                received += len(data)
        except (BlockingIOError, ConnectionError):
            return received
        return None

    def cancel(self, size):
        for key in sorted(self.calls):
            self.calls[key].cancel()

    def peer_send(self, size):
        # No more than is certain to be taken and delivered at once.
        self.peer.send(self.random.randbytes(min(size, 100)))

    async def peer_read(self, size):
        # How much is in the kernel's hands is its own affair: until all has come.
        empty = 0
        while empty < 4:
            empty = 0 if self.drain() else empty + 1
            await self.quiet()

    def peer_shutdown(self, size):
        self.peer.shutdown(socket.SHUT_WR)

    def shutdown(self, size):
        if "out" not in self.calls:
            self.ours.shutdown(socket.SHUT_WR)

    def peer_close(self, size):
        if not self.calls:
            self.peer.close()

    def add_reader(self, size):
        if "in" in self.calls:
            return "busy"
        self.callbacks.add("in")

        def ready():
            self.callbacks.discard("in")
            self.loop.remove_reader(self.ours)
            try:
                self.trace.append(("reader", self.ours.recv(size)))
            except OSError as error:
                self.trace.append(("reader", type(error).__name__))

        return self.loop.add_reader(self.ours, ready)

    def add_writer(self, size):
        if "out" in self.calls:
            return "busy"
        self.callbacks.add("out")

        def ready():
            self.callbacks.discard("out")
            self.trace.append(("writer", self.loop.remove_writer(self.ours)))

        return self.loop.add_writer(self.ours, ready)

    def remove_reader(self, size):
        if "in" in self.calls:
            return "busy"
        self.callbacks.discard("in")
        return self.loop.remove_reader(self.ours)

    def remove_writer(self, size):
        if "out" in self.calls:
            return "busy"
        self.callbacks.discard("out")
        return self.loop.remove_writer(self.ours)


@pytest.mark.parametrize("block", range(0, PROGRAMS, 10))
def test_random_programs(block):
    for seed in range(block, block + 10):
        ours = Machine(seed).run(ouroloop.new_event_loop)
        stock = Machine(seed).run(stock_loop)
        assert ours == stock, f"program {seed}"
