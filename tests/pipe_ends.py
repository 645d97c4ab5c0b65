"""What the tests of pipe transports share: pipes, terminals and a protocol that acts when told."""

import asyncio
import contextlib
import os
import tty

from network import Recorder, turns

PIPE_SIZE = 64 * 1024


@contextlib.contextmanager
def pipe():
    """A pipe as two unbuffered files."""
    r, w = os.pipe()
    with open(r, "rb", 0) as reader, open(w, "wb", 0) as writer:
        yield reader, writer


@contextlib.contextmanager
def terminal():
    """Both ends of a pty in raw mode, as files for reading and writing."""
    master, slave = os.openpty()
    tty.setraw(slave)
    with open(master, "r+b", 0) as ours, open(slave, "r+b", 0) as theirs:
        yield ours, theirs


class Events(Recorder):
    """A recorder whose calls may do something else, or fail."""

    def __init__(self, **does):
        super().__init__()
        self.does = does
        self.pieces = []

    def told(self, name, *args):
        if name in self.does:
            self.does[name](self, *args)

    def connection_made(self, transport):
        super().connection_made(transport)
        self.told("made")

    def data_received(self, data):
        super().data_received(data)
        self.pieces.append(len(data))
        self.told("data", data)

    def eof_received(self):
        super().eof_received()
        self.told("eof")

    def pause_writing(self):
        super().pause_writing()
        self.told("pause")

    def resume_writing(self):
        super().resume_writing()
        self.told("resume")

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.told("lost", exc)

    async def story(self):
        """What happened, once it is over."""
        exc = await asyncio.wait_for(self.lost, 5)
        await turns()
        t = self.transport
        return [
            *self.calls,
            len(self.data),
            type(exc).__name__,
            getattr(exc, "errno", None),
            t.is_closing(),
            t.get_protocol(),
            t.get_extra_info("pipe").closed,
        ]


def fail(*_):
    raise ZeroDivisionError
