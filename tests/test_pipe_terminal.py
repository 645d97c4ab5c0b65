"""Terminals as transports: both ways over one file, and hanging up, as on stock asyncio."""

import asyncio
import contextlib
import os
import resource

import pytest
from network import turns, until
from outcome import Cases, on_both
from pipe_ends import Events, terminal

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = Cases()
case, cases = CASES.one, CASES.each


@cases("one file", "two files")
def terminal_both_ways(loop, how):
    async def main():
        with terminal() as (ours, theirs):
            other = theirs
            if how == "two files":
                other = open(os.dup(theirs.fileno()), "wb", 0)
            with other:
                _, reader = await loop.connect_read_pipe(Events, theirs)
                transport, writer = await loop.connect_write_pipe(Events, other)
                ours.write(b"in")
                await until(lambda: reader.data == b"in")
                transport.write(b"out")
                await turns()
                got = ours.read(10)
                reader.transport.close()
                transport.close()
                return got, await reader.story(), await writer.story()

    return loop.run_until_complete(main())


@cases("read", "write")
def terminal_hangs_up(loop, side):
    """EIO is the end, and nothing that is reported."""

    async def main():
        with terminal() as (ours, theirs):
            connect = getattr(loop, f"connect_{side}_pipe")
            transport, protocol = await connect(Events, ours)
            theirs.close()
            if side == "write":
                transport.write(b"x")
                await turns()
                transport.close()
            return await protocol.story()

    return loop.run_until_complete(main())


@case
def terminal_slave_hangs_up(loop):
    async def main():
        with terminal() as (ours, theirs):
            _, protocol = await loop.connect_read_pipe(Events, theirs)
            ours.write(b"last")
            await until(lambda: protocol.data)
            ours.close()
            return await protocol.story()

    return loop.run_until_complete(main())


@case
def terminal_that_nobody_reads(loop):
    async def main():
        with terminal() as (ours, theirs):
            os.set_blocking(ours.fileno(), False)
            transport, protocol = await loop.connect_write_pipe(Events, theirs)
            transport.write(b"x" * 100_000)
            await turns()
            told = [*protocol.calls, transport.get_write_buffer_size() > 0]
            count = 0
            while transport.get_write_buffer_size():
                with contextlib.suppress(TypeError):
                    count += len(ours.read(10_000))
                await asyncio.sleep(0)
            transport.close()
            await protocol.story()
            while piece := ours.read(10_000):
                count += len(piece)
            return told, protocol.calls, count

    return loop.run_until_complete(main())


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case, debug):
    stock, ours = on_both(case, debug=debug)
    assert ours.lines() == stock.lines()


def test_add_reader_on_a_terminal_that_is_written_to(loop):
    """As on asyncio: somebody else may read what a transport writes to."""

    async def main():
        with terminal() as (ours, theirs):
            transport, protocol = await loop.connect_write_pipe(Events, theirs)
            heard = loop.create_future()
            loop.add_reader(theirs, lambda: heard.done() or heard.set_result(None))
            ours.write(b"x")
            await asyncio.wait_for(heard, 5)
            loop.remove_reader(theirs)
            transport.write(b"y")
            await turns()
            assert ours.read(1) == b"y"
            transport.close()
            await protocol.lost

    loop.run_until_complete(main())


def test_no_descriptor_left_for_a_duplicate(loop):
    """A terminal takes one more descriptor: without any the file stays the user's."""

    async def main():
        with terminal() as (ours, _):
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest = os.dup(0)
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            try:
                with pytest.raises(OSError, match="Too many open files"):
                    await loop.connect_read_pipe(Events, ours)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert not ours.closed
            transport, protocol = await loop.connect_read_pipe(Events, ours)
            transport.close()
            await protocol.lost

    loop.run_until_complete(main())
