"""Random conversations in datagrams, on stock asyncio and on ouroloop: the same calls in one order.

A program is a list of bursts: sends, and what a protocol does at its n-th datagram. After each
burst the loop turns until nothing happens any more. Each side's calls are compared: which of two
sockets is first is the kernel's choice.
OUROLOOP_FUZZ=n runs n programs more, OUROLOOP_SEED=k only program k.
"""

import asyncio
import os
import random
import re
import socket
import sys

import ouroloop
import pytest
from outcome import stock_loop

PROGRAMS = 60
BLOCK = 15
QUIET = 0.0005

EXTRA = int(os.environ.get("OUROLOOP_FUZZ", "0"))
ONLY = os.environ.get("OUROLOOP_SEED")
BLOCKS = [range(start, start + BLOCK) for start in range(0, PROGRAMS, BLOCK)]
if EXTRA:
    first = random.SystemRandom().randrange(10**6, 10**9)
    BLOCKS += [range(n, min(n + 200, first + EXTRA)) for n in range(first, first + EXTRA, 200)]
if ONLY:
    BLOCKS = [range(int(ONLY), int(ONLY) + 1)]

ACTIONS = ("nothing", "reply", "raise", "swap", "soon", "burst", "close", "abort", "stop")
if sys.version_info >= (3, 12):  # asyncio's cannot be paused before.
    ACTIONS += ("pause", "pause", "pause_for_ever")


def generate(seed):
    chance = random.Random(seed)
    bursts = []
    for _ in range(chance.randint(1, 6)):
        sends = [
            (chance.choice("abb"), chance.choice((0, 1, 1, 20, 20, 3000, 70_000)))
            for _ in range(chance.choice((1, 2, 5, 20, 40)))
        ]
        bursts.append((chance.random() < 0.7, sends))
    actions = {
        (chance.choice("ab"), chance.randint(1, 40)): chance.choice(
            ACTIONS if chance.random() < 0.5 else ACTIONS[:6]
        )
        for _ in range(chance.randint(0, 12))
    }
    return {
        "family": chance.choice((socket.AF_INET, socket.AF_INET6)),
        "broadcast": chance.random() < 0.2,
        "bursts": bursts,
        "actions": actions,
    }


class Side(asyncio.DatagramProtocol):
    def __init__(self, name, run):
        self.name, self.run = name, run

    def connection_made(self, transport):
        self.transport = transport

    def note(self, *what):
        self.run.logs[self.name[0]].append((self.name, *what))

    def datagram_received(self, data, addr):
        run, transport = self.run, self.transport
        run.received[self.name[0]] += 1
        action = run.program["actions"].get((self.name[0], run.received[self.name[0]]))
        self.note(
            "received", data[:4], len(data), addr == run.addresses.get("ab"[self.name[0] == "a"])
        )
        if action == "reply":
            transport.sendto(data + b"!", None if self.name[0] == "a" else addr)
        elif action == "raise":
            raise ZeroDivisionError(self.name)
        elif action == "swap":
            other = Side(self.name + "'", run)
            other.transport = transport
            transport.set_protocol(other)
        elif action == "soon":
            run.loop.call_soon(self.note, "soon")
        elif action == "burst":
            for n in range(20):
                transport.sendto(b"b%d" % n, None if self.name[0] == "a" else addr)
        elif action in ("close", "abort"):
            getattr(transport, action)()
        elif action in ("pause", "pause_for_ever"):
            transport.pause_reading()
            if action == "pause":
                run.loop.call_soon(transport.resume_reading)
        elif action == "stop":
            run.loop.stop()

    def error_received(self, exc):
        # Whether the other is gone already is a matter of which was first, too.
        if not isinstance(exc, ConnectionRefusedError):
            self.note("error", type(exc).__name__, exc.errno)

    def connection_lost(self, exc):
        self.note("lost", repr(exc))


class Run:
    def __init__(self, program, new_event_loop):
        self.program = program
        self.logs, self.received, self.addresses = {"a": [], "b": []}, {"a": 0, "b": 0}, {}
        self.loop = new_event_loop()
        self.loop.set_exception_handler(self.report)
        try:
            self.sides = {}
            self.complete(self.open())
            for outside, sends in program["bursts"]:
                if outside:
                    self.send(sends)
                else:
                    self.loop.call_soon(self.send, sends)
                self.settle()
            for side in self.sides.values():
                if not side.is_closing():
                    side.abort()
            self.settle()
        finally:
            self.loop.close()

    def complete(self, coroutine):
        task = self.loop.create_task(coroutine)
        task.add_done_callback(lambda task: self.loop.stop())
        while not task.done():  # A protocol may stop the loop, too.
            self.loop.run_forever()
        return task.result()

    def report(self, loop, context):
        text = re.sub(r"\b_?\w*DatagramTransport\.", "", context["message"])
        name = str(context["exception"])[0]
        self.logs[name].append(("report", text, repr(context["exception"])))

    async def open(self):
        host = "127.0.0.1" if self.program["family"] == socket.AF_INET else "::1"
        open_one = self.loop.create_datagram_endpoint
        b, _ = await open_one(lambda: Side("b", self), local_addr=(host, 0))
        self.addresses["b"] = b.get_extra_info("sockname")
        a, _ = await open_one(
            lambda: Side("a", self),
            local_addr=(host, 0),
            remote_addr=self.addresses["b"][:2],
            allow_broadcast=self.program["broadcast"] or None,
        )
        self.addresses["a"] = a.get_extra_info("sockname")
        self.sides = {"a": a, "b": b}

    def send(self, sends):
        for n, (name, size) in enumerate(sends):
            transport = self.sides[name]
            data = (b"%d" % n).ljust(size, b".")[:size]
            try:
                transport.sendto(data, None if name == "a" else self.addresses["a"])
            except (AttributeError, ValueError) as error:
                self.logs[name].append((name, "raised", type(error).__name__))

    def settle(self):
        before = None
        while before != [len(log) for log in self.logs.values()]:
            before = [len(log) for log in self.logs.values()]
            for _ in range(2):
                self.complete(asyncio.sleep(QUIET))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.start}-{block.stop - 1}")
@pytest.mark.filterwarnings("ignore")
def test_conversations(block):
    different = []
    for seed in block:
        program = generate(seed)
        stock, ours = Run(program, stock_loop), Run(program, ouroloop.new_event_loop)
        for name in "ab":
            x, y = stock.logs[name], ours.logs[name]
            if x == y:
                continue
            at = next((n for n in range(min(len(x), len(y))) if x[n] != y[n]), min(len(x), len(y)))
            different.append(
                f"OUROLOOP_SEED={seed}: entry {at} of {len(x)} and {len(y)} of {name}\n"
                f"  asyncio:  {x[at : at + 6]}\n  ouroloop: {y[at : at + 6]}\n"
                f"  actions: {program['actions']}"
            )
    assert not different, "\n".join(different)
