"""asyncio's event loop as a C extension on libuv.

    import ouroloop
    ouroloop.run(main())

or, in a program that calls asyncio.run() itself, ouroloop.install() first.
"""

import asyncio
import sys
from asyncio import coroutines
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from . import _core
from .loop import Loop

__version__ = "0.1.0"

__all__: tuple[str, ...] = (
    "Future",
    "Loop",
    "Task",
    "__version__",
    "build_info",
    "new_event_loop",
    "run",
)

T = TypeVar("T")

Future = _core.Future
Task = _core.Task


def new_event_loop() -> Loop:
    """Return a new Loop: a loop_factory for asyncio.run() and asyncio.Runner."""
    return Loop()


def run(
    main: Coroutine[Any, Any, T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run a coroutine on a new Loop and return its result.

    main: the coroutine.  debug: the loop's debug mode, None for the default of
    asyncio.  loop_factory: a callable that returns the loop, None for
    new_event_loop().  Raise what main raises; RuntimeError if an event loop
    runs in this thread already, ValueError if main is not a coroutine.
    Otherwise as asyncio.run() on this version of Python.
    """
    if loop_factory is None:
        loop_factory = new_event_loop
    if sys.version_info >= (3, 12):
        return asyncio.run(main, debug=debug, loop_factory=loop_factory)
    if sys.version_info >= (3, 11):
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("asyncio.run() cannot be called from a running event loop")
        with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
            return runner.run(main)
    return _run_3_10(main, debug, loop_factory)


def _run_3_10(
    main: Coroutine[Any, Any, T],
    debug: bool | None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> T:
    # Python 3.10 has neither Runner nor loop_factory.
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    if not coroutines.iscoroutine(main):
        raise ValueError(f"a coroutine was expected, got {main!r}")
    loop = loop_factory()
    try:
        asyncio.set_event_loop(loop)
        if debug is not None:
            loop.set_debug(debug)
        return loop.run_until_complete(main)
    finally:
        try:
            asyncio.runners._cancel_all_tasks(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def build_info() -> dict[str, str | bool]:
    """Return how this copy was built and what it found, as a dict of str and bool.

    libuv_compiled, libuv_running: versions.  layout: the CPython layout that
    Future and Task are built on.  fast_types: False where it did not fit and
    asyncio's own types are used instead; stock_types_reason: why, else "".
    registers: "native" where tasks are entered into asyncio's registers in place,
    "calls" where that is left to asyncio's functions.  build_flags: the C compiler's.
    """
    return {
        "version": __version__,
        "python": sys.version.split()[0],
        "libuv_compiled": _core.LIBUV_COMPILED,
        "libuv_running": _core.LIBUV_RUNNING,
        "layout": _core.LAYOUT,
        "fast_types": _core.FAST_TYPES,
        "stock_types_reason": _core.STOCK_TYPES_REASON,
        "registers": _core.REGISTERS,
        "build_flags": _core.BUILD_FLAGS,
    }


if sys.version_info < (3, 16):
    from .policy import EventLoopPolicy, install

    __all__ += ("EventLoopPolicy", "install")
