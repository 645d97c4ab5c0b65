"""Random programs for one asyncio stream: what runs them, and what is seen of the stream meanwhile.

A program is a limit and a list of steps. After each step the loop turns until nothing happens any
more; then everything of the stream that a user can see is written down, in words that are the same
on every loop.
"""

import asyncio
import contextlib
import random
import re
import socket
import sys
import traceback
from asyncio import streams

STEPS = (
    ("send", 24),
    ("send_lines", 12),
    ("send_large", 2),
    ("end", 1),
    ("reset", 1),
    ("read", 30),
    ("cancel", 4),
    ("look", 3),
    ("chain", 3),
    ("write", 6),
    ("write_large", 1),
    ("receive", 3),
    ("fail", 1),
    ("feed", 2),
    ("feed_eof", 1),
    ("hold_buffer", 1),
    ("release_buffer", 2),
    ("replace_buffer", 1),
    ("spoil", 1),
    ("shadow", 1),
    ("patch", 2),
    ("unpatch", 3),
    ("close", 1),
)
READS = (
    ("readline", ()),
    ("readline", ()),
    ("readexactly", (1,)),
    ("readexactly", (7,)),
    ("readexactly", (90,)),
    ("readexactly", (0,)),
    ("readexactly", (-1,)),
    ("readexactly", (True,)),
    ("readuntil", ()),
    ("readuntil", (b"ab",)),
    ("readuntil", (b"",)),
    ("readuntil", (bytearray(b"b\n"),)),
    ("readuntil", ((b"abc", b"c"),)),
    ("read", (5,)),
    ("read", (1000,)),
    ("read", (0,)),
    ("read", ()),
    ("read", ("x",)),
    ("__anext__", ()),
)
# The result of a call is awaited at once, later, by a task of its own, or by wait_for().
WAYS = ("at_once", "at_once", "at_once", "at_once", "later", "task", "wait_for")
SPOILED = ("_waiter", "_buffer", "_eof", "_limit", "_paused", "_loop", "_exception")
SHADOWED = ("feed_data", "_wakeup_waiter", "_wait_for_data", "_maybe_resume_transport", "readuntil")
PATCHED = (
    (streams.StreamReader, "feed_data"),
    (streams.StreamReader, "_wait_for_data"),
    (streams.StreamReader, "_maybe_resume_transport"),
    (streams.StreamReader, "readuntil"),
    (streams.StreamReader, "readline"),
    (streams.StreamReaderProtocol, "data_received"),
    (streams.FlowControlMixin, "_drain_helper"),
    (streams.StreamWriter, "drain"),
)


def generate(seed):
    """The program of a number."""
    chance = random.Random(seed)
    names, weights = zip(*STEPS, strict=True)
    steps = []
    for name in chance.choices(names, weights, k=chance.randint(4, 24)):
        if name == "read":
            steps.append((name, *chance.choice(READS), chance.choice(WAYS)))
        elif name == "send":
            steps.append(
                (name, bytes(chance.choices(b"abc\n", (4, 3, 2, 2), k=chance.randint(1, 40))))
            )
        elif name == "send_lines":
            lines = [b"a" * chance.randint(0, 20) for _ in range(chance.randint(1, 4))]
            steps.append((name, b"\n".join(lines) + b"\n"))
        elif name in ("cancel", "chain"):
            steps.append((name, chance.randint(0, 3)))
        elif name == "spoil":
            how = chance.choice(("delete", "None", "object", "0", "5"))
            steps.append((name, chance.choice(SPOILED), how))
        elif name == "shadow":
            steps.append((name, chance.choice(SHADOWED)))
        elif name == "patch":
            steps.append((name, chance.randrange(len(PATCHED))))
        else:
            steps.append((name,))
    return {"limit": chance.choice((1, 8, 30, 64, 1000)), "steps": steps}


def words(value):
    """What does not depend on the loop and the run: no addresses, no names of ours."""
    text = re.sub(r"\b0x[0-9a-f]+", "0x", repr(value) if not isinstance(value, str) else value)
    text = re.sub(r"transport=<\w+", "transport=<Transport", text)
    text = re.sub(r"\b(_SelectorSocketTransport|StreamTransport)\b", "Transport", text)
    text = re.sub(r"\bfd=\d+", "fd=", text)
    text = re.sub(r"Task-\d+", "Task", text)
    text = re.sub(r"(read|write)=<?(polling|idle)", r"\1=", text)
    text = re.sub(r"bufsize=\d+", "", text)
    text = re.sub(r"<ouroloop.loop.Loop|<Loop |<_UnixSelectorEventLoop ", "<Loop ", text)
    return text


def frames(error):
    """Where it passed through asyncio's streams."""
    return [
        (frame.name, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == streams.__file__
    ]


def outcome(task):
    """How a task has ended."""
    if not task.done():
        return "pending"
    if task.cancelled():
        try:
            task.result()
        except asyncio.CancelledError as error:
            return "cancelled", frames(error)
    error = task.exception()
    if error is None:
        return "returned", task.result()
    context = error.__context__
    return words(error), frames(error), words(context), frames(context) if context else []


class Run:
    """One program on the running loop."""

    def __init__(self, program):
        self.program = program
        self.events = []
        self.tasks = []
        self.held = None
        self.patches = contextlib.ExitStack()

    async def run(self):
        """Return what was seen."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self.report)
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.reader, self.writer = await asyncio.open_connection(
            sock=ours, limit=self.program["limit"]
        )
        try:
            for step in self.program["steps"]:
                try:
                    getattr(self, step[0])(*step[1:])
                except Exception as error:
                    self.events.append(("raised", words(error), frames(error)))
                await self.settle()
                self.events.append((step[0], self.seen()))
        finally:
            self.patches.close()
            self.release_buffer()
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            # It may have been spoiled.
            self.writer.transport.abort()
            await self.settle()
            self.peer.close()
        self.events.append([outcome(task) for task in self.tasks])
        return self.events

    async def settle(self):
        await asyncio.sleep(0.0005)
        await self.turn()

    async def turn(self):
        for _ in range(8):
            await asyncio.sleep(0)

    def report(self, loop, context):
        error = context.get("exception")
        self.events.append(("reported", words(context["message"]), words(error), frames(error)))

    def seen(self):
        state = {
            name: value if isinstance(value, (bytes, bytearray, bool, int)) else words(value)
            for name, value in vars(self.reader).items()
            if name not in ("_transport", "_loop")
        }
        try:
            shown = words(self.reader)
        except Exception as error:
            shown = words(error)
        transport = self.writer.transport
        return (
            {name: repr(value) for name, value in state.items()},
            shown,
            transport.is_reading(),
            transport.is_closing(),
            transport.get_protocol() is None or transport.get_protocol()._paused,
            [outcome(task) for task in self.tasks],
        )

    # Steps.

    def send(self, data):
        with contextlib.suppress(OSError):
            self.peer.send(data)

    send_lines = send

    def send_large(self):
        self.send(b"x" * 3000)

    def end(self):
        with contextlib.suppress(OSError):
            self.peer.shutdown(socket.SHUT_WR)

    def reset(self):
        self.peer.close()

    def read(self, name, arguments, way):
        if sys.version_info < (3, 13) and arguments and isinstance(arguments[0], tuple):
            arguments = (b"c",)
        reader = self.reader

        async def at_once():
            if name == "readline":
                return await reader.readline()
            if name == "readuntil":
                return await reader.readuntil(*arguments)
            if not arguments:
                return await getattr(reader, name)()
            (argument,) = arguments
            if name == "readexactly":
                return await reader.readexactly(argument)
            return await reader.read(argument)

        async def later():
            coroutine = getattr(reader, name)(*arguments)
            await asyncio.sleep(0)
            return await coroutine

        if way == "task":
            coroutine = getattr(reader, name)(*arguments)
        elif way == "wait_for":
            coroutine = asyncio.wait_for(getattr(reader, name)(*arguments), 60)
        else:
            coroutine = {"at_once": at_once, "later": later}[way]()
        self.tasks.append(asyncio.ensure_future(coroutine))

    def cancel(self, number):
        if number < len(self.tasks):
            self.tasks[number].cancel()

    def look(self):
        self.events.append((self.reader.at_eof(), words(self.reader.exception())))

    def chain(self, number):
        """What each of the coroutines waits for, as debuggers find it out."""
        if number >= len(self.tasks):
            return
        found, waiting = [], self.tasks[number].get_coro()
        while hasattr(waiting, "cr_await"):
            frame = waiting.cr_frame
            found.append((waiting.__qualname__, frame and (frame.f_code.co_name, frame.f_lineno)))
            waiting = waiting.cr_await
        self.events.append(found)

    def write(self, data=b"some data"):
        async def drain():
            self.writer.write(data)
            if self.peer.fileno() < 0:
                # What is written goes out, and fails, when the step of the task ends.
                await self.turn()
            await self.writer.drain()

        self.tasks.append(asyncio.ensure_future(drain()))

    def write_large(self):
        self.write(b"x" * 3_000_000)

    def receive(self):
        with contextlib.suppress(OSError):
            while self.peer.recv(1 << 20):
                pass

    def fail(self):
        self.reader.set_exception(ValueError("set by the program"))

    def feed(self):
        self.reader.feed_data(b"fed\n")

    def feed_eof(self):
        self.reader.feed_eof()

    def hold_buffer(self):
        self.release_buffer()
        self.held = memoryview(self.reader._buffer)

    def release_buffer(self):
        if self.held is not None:
            self.held.release()

    def replace_buffer(self):
        self.reader._buffer = bytearray(b"another\nbuffer")

    def spoil(self, name, how):
        if how == "delete":
            delattr(self.reader, name)
        else:
            value = {"None": None, "object": "an object", "0": 0, "5": 5}[how]
            setattr(self.reader, name, value)

    def shadow(self, name):
        setattr(self.reader, name, self.logged(name, getattr(self.reader, name)))

    def patch(self, number):
        owner, name = PATCHED[number]
        before = getattr(owner, name)
        inherited = name not in vars(owner)
        setattr(owner, name, self.logged(name, before))
        self.patches.callback(
            lambda: delattr(owner, name) if inherited else setattr(owner, name, before)
        )

    def unpatch(self):
        self.patches.close()

    def close(self):
        self.writer.close()

    def logged(self, name, function):
        def call(*args, **keywords):
            self.events.append(("called", name))
            return function(*args, **keywords)

        return call
