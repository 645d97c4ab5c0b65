"""Exceptions nobody looks at are reported once each, however often the objects are reused."""

import asyncio
import gc
import logging
import sys

import ouroloop


def reports_of(function, handler=True):
    loop = ouroloop.new_event_loop()
    reports = []
    if handler:
        loop.set_exception_handler(lambda loop, context: reports.append(context))
    function(loop)
    gc.collect()
    loop.close()
    return reports


def futures():
    def make(loop):
        for n in range(1000):
            loop.create_future().set_exception(ValueError(n))

    reports = reports_of(make)
    assert [r["exception"].args[0] for r in reports] == list(range(1000)), len(reports)
    assert {r["message"] for r in reports} == {"Future exception was never retrieved"}
    assert all(r["future"].done() for r in reports)


def tasks():
    async def fail(n):
        raise ValueError(n)

    def make(loop):
        for n in range(1000):
            loop.create_task(fail(n))
            loop.call_soon(loop.stop)
            loop.run_forever()

    reports = reports_of(make)
    assert sorted(r["exception"].args[0] for r in reports) == list(range(1000)), len(reports)
    assert {r["message"] for r in reports} == {"Task exception was never retrieved"}


def retrieved():
    async def fail(n):
        raise ValueError(n)

    def make(loop):
        for n in range(300):
            loop.run_until_complete(asyncio.wait([loop.create_task(fail(n))]))
            future = loop.create_future()
            future.set_exception(KeyError(n))
            future.exception()
            task = loop.create_task(fail(n))
            try:
                loop.run_until_complete(task)
            except ValueError:
                continue

    # Of the three only the first, waited for and never asked, is to be reported.
    reports = reports_of(make)
    assert len(reports) == 300, len(reports)


def pending_tasks():
    async def wait(future):
        await future

    def make(loop):
        for _ in range(300):
            loop.create_task(wait(loop.create_future()))
            loop.call_soon(loop.stop)
            loop.run_forever()
        gc.collect()

    reports = reports_of(make)
    assert len(reports) == 300, len(reports)
    assert {r["message"] for r in reports} == {"Task was destroyed but it is pending!"}


def logged():
    """Without a handler the default one logs, with the traceback."""
    records = []

    class Handler(logging.Handler):
        def emit(self, record):
            records.append(self.format(record))

    logging.getLogger("asyncio").addHandler(Handler())

    async def fail():
        raise ValueError("look at me")

    def make(loop):
        loop.create_task(fail())
        loop.call_soon(loop.stop)
        loop.run_forever()

    reports_of(make, handler=False)
    (record,) = records
    assert "Task exception was never retrieved" in record, record
    assert "ValueError: look at me" in record, record
    assert "in fail" in record, record


def resurrected():
    """A handler that keeps the future: it stays a whole object, and is not reported again."""
    kept = []

    def make(loop):
        loop.set_exception_handler(lambda loop, context: kept.append(context["future"]))
        for n in range(10):
            loop.create_future().set_exception(ValueError(n))
        gc.collect()
        others = [loop.create_future() for _ in range(20)]
        assert len({id(future) for future in (*kept, *others)}) == 30, "memory used twice"

    reports_of(make)
    assert [future.exception().args[0] for future in kept] == list(range(10))
    kept.clear()
    gc.collect()
    assert not kept


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
