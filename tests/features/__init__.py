"""Probes of what asyncio's loops can do: each runs on stock asyncio and on ouroloop alike.

A probe is a function of a new loop, or of a loop and an empty directory. It asserts what asyncio
promises and returns what else is to be the same on both loops.
"""

import asyncio
import contextlib
import functools
import inspect
import ssl
import sys
from collections import defaultdict

import trustme

# Row -> probes, filled as the modules of this package are imported.
PROBES = defaultdict(list)


def feature(row, since=(3, 10), needs=None):
    """Make a function a probe of a row; `needs` says why the machine cannot run it, or nothing."""

    def add(function):
        function.since = since
        function.needs = needs
        function.wants_folder = len(inspect.signature(function).parameters) == 2
        PROBES[row].append(function)
        return function

    return add


def connection(row, since=(3, 10), needs=None):
    """The same for a coroutine function: it runs on the loop that it is given."""

    def add(function):
        @functools.wraps(function)
        def probe(loop, *arguments):
            return loop.run_until_complete(asyncio.wait_for(function(loop, *arguments), 30))

        return feature(row, since, needs)(probe)

    return add


@functools.cache
def authority():
    return trustme.CA()


@functools.cache
def server_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@functools.cache
def client_context():
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


async def echo(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


def address(server):
    return server.sockets[0].getsockname()


@contextlib.asynccontextmanager
async def serving(server):
    """The address of a server, which ends with the block."""
    try:
        yield address(server)
    finally:
        server.close()
        await server.wait_closed()


async def raised(awaitable):
    """How an awaitable fails, in words."""
    try:
        value = await awaitable
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError(f"it gave {value!r} instead of an error")


def refused(function, *arguments, **options):
    """How a call fails, in words."""
    try:
        value = function(*arguments, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError(f"it gave {value!r} instead of an error")


def at_least(*version):
    return sys.version_info >= version
