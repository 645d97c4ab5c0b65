"""Random conversations over a connection, on stock asyncio and on ouroloop: the same events.

A program is a kind of connection, two protocols and a list of steps; between two steps the loop
turns until nothing happens any more. Each side's calls are compared, consecutive data as one.
OUROLOOP_FUZZ=n runs n programs more, OUROLOOP_SEED=k only program k.
"""

import asyncio
import contextlib
import os
import pprint
import random
import re
import socket
import ssl

import ouroloop
import pytest

PROGRAMS = 120
BLOCK = 20
QUIET = 0.0008
HERE = os.path.dirname(os.path.abspath(__file__))
CERTIFICATE = os.path.join(HERE, "localhost.pem")

EXTRA = int(os.environ.get("OUROLOOP_FUZZ", "0"))
ONLY = os.environ.get("OUROLOOP_SEED")
BLOCKS = [range(start, start + BLOCK) for start in range(0, PROGRAMS, BLOCK)]
if EXTRA:
    first = random.SystemRandom().randrange(10**6, 10**9)
    BLOCKS += [range(n, min(n + 500, first + EXTRA)) for n in range(first, first + EXTRA, 500)]
if ONLY:
    BLOCKS = [range(int(ONLY), int(ONLY) + 1)]

STEPS = (
    ("write", 12),
    ("writelines", 3),
    ("write_three", 3),
    ("write_large", 2),
    ("write_empty", 1),
    ("write_eof", 1),
    ("close", 1),
    ("abort", 1),
    ("pause_reading", 2),
    ("resume_reading", 2),
    ("limits", 1),
    ("set_protocol", 1),
    ("state", 2),
)


def generate(seed):
    chance = random.Random(seed)
    names, weights = zip(*STEPS, strict=True)
    return {
        "kind": chance.choice(("tcp", "tcp", "unix", "tls")),
        "keep_open": [chance.random() < 0.3, chance.random() < 0.3],
        "buffered": [chance.random() < 0.25, chance.random() < 0.25],
        "answers": [False, chance.random() < 0.3],
        "fails": chance.choice((None, None, None, None, None, "data", "eof", "lost")),
        "steps": [
            (chance.randrange(2), name, chance.randrange(1, 3000))
            for name in chance.choices(names, weights, k=chance.randint(2, 12))
        ],
    }


class Side:
    """Writes down what a protocol is told."""

    def __init__(self, program, number):
        self.keep_open = program["keep_open"][number]
        self.answers = program["answers"][number]
        self.fails = program["fails"] if number == 0 else None
        self.events = []
        self.transport = None

    def note(self, *event):
        if event[0] == "data" and self.events and self.events[-1][0] == "data":
            event = ("data", self.events.pop()[1] + event[1])
        self.events.append(event)

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def got(self, data):
        self.note("data", data)
        if self.fails == "data":
            raise ZeroDivisionError
        # Once: into how many pieces the data falls is not asyncio's to say.
        if self.answers and not self.transport.is_closing():
            self.answers = False
            self.transport.write(b"answer")

    def eof_received(self):
        self.note("eof")
        if self.fails == "eof":
            raise ZeroDivisionError
        return self.keep_open

    def pause_writing(self):
        self.note("pause")

    def resume_writing(self):
        self.note("resume")

    def connection_lost(self, exc):
        if isinstance(exc, ConnectionError) and self.events[-1] == ("eof",):
            # A peer that vanished under a write: whether its EOF is seen before is a race.
            self.events.pop()
        self.note("lost", type(exc).__name__)
        if self.fails == "lost":
            raise ZeroDivisionError


class Plain(Side, asyncio.Protocol):
    def data_received(self, data):
        self.got(bytes(data))


class Buffered(Side, asyncio.BufferedProtocol):
    def get_buffer(self, sizehint):
        self.buffer = bytearray(1000)
        # asyncio's TLS reads into slices of it, and a slice of a bytearray would be a copy.
        return memoryview(self.buffer)

    def buffer_updated(self, size):
        self.got(bytes(self.buffer[:size]))


class Conversation:
    def __init__(self, program, loop):
        self.program = program
        self.loop = loop
        self.reports = []
        loop.set_exception_handler(self.on_report)

    def on_report(self, loop, context):
        exception = context.get("exception")
        message = re.sub(r"\w+Transport\.|\(.*", "", context["message"])
        self.reports.append((message, type(exception).__name__))

    def protocol(self, number):
        cls = Buffered if self.program["buffered"][number] else Plain
        return cls(self.program, number)

    async def main(self):
        self.sides = [None, None]
        server = await self.connect()
        self.log = []
        await self.quiet()
        for number, name, size in self.program["steps"]:
            side = self.sides[number]
            try:
                result = getattr(self, name)(side, side.transport, size)
            except Exception as error:
                result = f"{type(error).__name__}: {error}"
            self.log.append((number, name, result))
            await self.quiet()
            for other in self.sides:
                other.note("after", name)
        for side in self.sides:
            # asyncio's TLS transport of 3.11.2 cannot be aborted once its connection is lost.
            with contextlib.suppress(AttributeError):
                side.transport.abort()
        await self.quiet()
        if server is not None:
            server.close()
        return {"log": self.log, "a": self.sides[0].events, "b": self.sides[1].events}

    async def connect(self):
        loop, program = self.loop, self.program
        if program["kind"] == "unix":
            for number, sock in enumerate(socket.socketpair()):
                _, self.sides[number] = await loop.create_connection(
                    lambda number=number: self.protocol(number), sock=sock
                )
            return None
        accepted = loop.create_future()
        options, server_options = {}, {}
        if program["kind"] == "tls":
            server_options["ssl"] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server_options["ssl"].load_cert_chain(CERTIFICATE)
            options["ssl"] = ssl.create_default_context(cafile=CERTIFICATE)

        def accept():
            protocol = self.protocol(1)
            made = protocol.connection_made

            def connection_made(transport):
                made(transport)
                accepted.set_result(protocol)

            protocol.connection_made = connection_made
            return protocol

        server = await loop.create_server(accept, "127.0.0.1", 0, **server_options)
        address = server.sockets[0].getsockname()
        _, self.sides[0] = await loop.create_connection(
            lambda: self.protocol(0), *address, **options
        )
        self.sides[1] = await accepted
        return server

    async def quiet(self):
        """Turn until neither side has been told anything for a while."""
        calm = 0
        while calm < 3:
            before = [len(side.events) + self.size(side) for side in self.sides]
            await asyncio.sleep(QUIET)
            after = [len(side.events) + self.size(side) for side in self.sides]
            calm = calm + 1 if before == after else 0

    @staticmethod
    def size(side):
        return sum(len(event[1]) for event in side.events if event[0] == "data")

    @staticmethod
    def ended(side):
        return any(event[0] == "lost" for event in side.events)

    def write(self, side, transport, size):
        transport.write(b"w" * size)

    def writelines(self, side, transport, size):
        # After the end asyncio's own writelines fails on attributes it has already taken away.
        if not self.ended(side):
            transport.writelines([b"l" * size, b"", bytearray(b"m" * 7), memoryview(b"n")])

    def write_three(self, side, transport, size):
        # To a peer that is gone the second send fails; three writes sent as one are only the first.
        if not any(self.ended(side) for side in self.sides):
            for letter in (b"1", b"2", b"3"):
                transport.write(letter * size)

    def write_large(self, side, transport, size):
        transport.write(bytes(range(256)) * (size // 2))

    def write_empty(self, side, transport, size):
        transport.write(b"")

    def write_eof(self, side, transport, size):
        if transport.can_write_eof():
            transport.write_eof()
        return transport.can_write_eof()

    def close(self, side, transport, size):
        transport.close()

    def abort(self, side, transport, size):
        transport.abort()

    def pause_reading(self, side, transport, size):
        transport.pause_reading()

    def resume_reading(self, side, transport, size):
        transport.resume_reading()

    def limits(self, side, transport, size):
        transport.set_write_buffer_limits(high=size)
        return transport.get_write_buffer_limits()

    def set_protocol(self, side, transport, size):
        other = Plain(self.program, 0)
        other.fails, other.events, other.transport = None, side.events, transport
        transport.set_protocol(other)
        return transport.get_protocol() is other

    def state(self, side, transport, size):
        reading = self.program["kind"] != "tls" and transport.is_reading()
        return transport.is_closing(), reading, transport.get_write_buffer_size() == 0


def run(program, new_event_loop):
    loop = new_event_loop()
    conversation = Conversation(program, loop)
    try:
        outcome = loop.run_until_complete(asyncio.wait_for(conversation.main(), 20))
    finally:
        loop.close()
    outcome["reports"] = sorted(conversation.reports)
    return outcome


def stock(program):
    return run(program, asyncio.SelectorEventLoop)


def ours(program):
    return run(program, ouroloop.new_event_loop)


def differs(program):
    """True if the outcome differs whenever it is tried: a busy machine may turn too late."""
    return all(stock(program) != ours(program) for _ in range(3))


def reduce(program):
    position = 0
    while position < len(program["steps"]):
        steps = program["steps"]
        smaller = {**program, "steps": steps[:position] + steps[position + 1 :]}
        if smaller["steps"] and differs(smaller):
            program = smaller
        else:
            position += 1
    return program


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("seeds", BLOCKS, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_same_conversation(seeds):
    for seed in seeds:
        program = generate(seed)
        if differs(program):
            small = reduce(program)
            expected, got = stock(small), ours(small)
            changed = [
                f"{key}: asyncio  {shorten(expected[key])}\n{key}: ouroloop {shorten(got[key])}"
                for key in expected
                if expected[key] != got[key]
            ]
            pytest.fail(
                f"seed {seed} (OUROLOOP_SEED={seed}), reduced to\n{pprint.pformat(small)}\n"
                + "\n".join(changed)
            )


def shorten(events):
    return [
        ("data", len(event[1]), event[1][:4]) if event[0] == "data" else event for event in events
    ]
