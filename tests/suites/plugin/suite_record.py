"""pytest plugin: writes what becomes of each test, and what loops were made, to $SUITE_RECORD.

One JSON object a line, written at once, so that the record of a run that crashed tells where.
"""

import asyncio
import asyncio.base_events
import collections
import functools
import json
import os

FILE = open(os.environ["SUITE_RECORD"], "w", buffering=1)
LOOPS = collections.Counter()


def write(**entry):
    FILE.write(json.dumps(entry) + "\n")


def count_loops():
    """Count the loops of each type, whoever makes them."""
    stock = asyncio.base_events.BaseEventLoop.__init__

    @functools.wraps(stock)
    def init(self, *args, **kwargs):
        LOOPS["ouroloop" if is_ours(type(self)) else "other"] += 1
        stock(self, *args, **kwargs)

    asyncio.base_events.BaseEventLoop.__init__ = init


def is_ours(loop_type):
    return any(base.__module__ == "ouroloop.loop" for base in loop_type.__mro__)


def stand_in():
    """Our loop by the name of asyncio's default, which some tests, and uvicorn itself, ask for."""
    import ouroloop

    stock = asyncio.SelectorEventLoop

    class Named(type(ouroloop.Loop)):
        def __instancecheck__(cls, instance):
            # The loops of the policy are instances of ouroloop.Loop itself.
            return type.__instancecheck__(stock if cls is ours else cls, instance)

    names = {"__module__": stock.__module__, "__qualname__": stock.__qualname__}
    ours = Named(stock.__name__, (ouroloop.Loop,), names)
    for name in ("SelectorEventLoop", "EventLoop"):
        if getattr(asyncio, name, None) is stock:
            setattr(asyncio, name, ours)


def pytest_configure(config):
    count_loops()
    if config.getoption("--ouroloop"):
        stand_in()


def pytest_collectreport(report):
    if report.failed:
        write(test=report.nodeid, outcome="failed", detail=report.longreprtext)


def pytest_runtest_logstart(nodeid):
    write(test=nodeid, outcome="started")


def pytest_runtest_logreport(report):
    # A test is what its worst phase is; an expected failure counts as skipped.
    if report.when == "call" or not report.passed:
        write(test=report.nodeid, outcome=report.outcome, detail=report.longreprtext)


def pytest_sessionfinish(exitstatus):
    write(exit=int(exitstatus), loops=dict(LOOPS))


def pytest_unconfigure():
    FILE.close()
