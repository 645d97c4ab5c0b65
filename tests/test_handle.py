"""csrc/handle.c: callbacks in their contexts, and the life of handles."""

import asyncio
import contextvars
import gc
import os
import weakref

import pytest


@pytest.fixture
def stock():
    loop = asyncio.SelectorEventLoop()
    yield loop
    loop.close()


def callback(*args):
    return args


def test_cancel(loop):
    ran = []
    handle = loop.call_soon(ran.append, 1)
    assert not handle.cancelled()
    handle.cancel()
    handle.cancel()
    assert handle.cancelled()
    assert handle._callback is None
    assert handle._args is None
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == []


def test_cancel_by_an_earlier_callback(loop):
    ran = []
    loop.call_soon(lambda: later.cancel())
    later = loop.call_soon(ran.append, 1)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert ran == []


def test_cancel_by_its_own_callback(loop):
    ran = []

    def cancel_self(argument):
        handle.cancel()
        gc.collect()
        ran.append(argument)

    handle = loop.call_soon(cancel_self, object())
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert len(ran) == 1
    assert handle.cancelled()


@pytest.mark.parametrize("args", [(), (1,), (None,), ((1, 2),), (1, 2, 3)])
def test_arguments_arrive(loop, args):
    seen = []
    loop.call_soon(lambda *given: seen.append(given), *args)
    loop.call_later(0, lambda *given: seen.append(given), *args)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert seen == [args, args]


def test_context_is_a_copy_of_the_current_one(loop):
    variable = contextvars.ContextVar("variable", default=0)
    seen = []

    def first():
        seen.append(variable.get())
        variable.set(2)
        loop.call_soon(second)

    def second():
        seen.append(variable.get())
        loop.stop()

    variable.set(1)
    loop.call_soon(first)
    variable.set(5)
    loop.run_forever()
    assert seen == [1, 2]
    assert variable.get() == 5


def test_context_that_only_has_run(loop):
    class Runner:
        def run(self, function, *args):
            return function("by run", *args)

    seen = []
    loop.call_soon(lambda *args: seen.append(args), 1, context=Runner())
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == [("by run", 1)]


def test_context_without_run_is_reported(loop, reports):
    loop.call_soon(callback, context=3)
    loop.call_soon(loop.stop)
    loop.run_forever()
    (report,) = reports.take()
    assert str(report["exception"]) == "'int' object has no attribute 'run'"


def test_context_that_is_entered_already_is_reported(loop):
    context = contextvars.copy_context()
    reports = []
    # Not the exception handler: asyncio runs that in the handle's context.
    loop.call_exception_handler = reports.append

    def run():
        loop.call_soon(callback, context=context)
        loop.call_soon(loop.stop)
        loop.run_forever()

    context.run(run)
    (report,) = reports
    assert isinstance(report["exception"], RuntimeError)


def test_failure_is_reported_as_asyncio_does(loop, stock, reports):
    def fail(argument):
        raise ValueError(argument)

    theirs = []
    stock.set_exception_handler(lambda loop, context: theirs.append(context))
    for each in (stock, loop):
        each.call_soon(fail, 1)
        each.call_soon(each.stop)
        each.run_forever()
    (ours,), (expected,) = reports.take(), theirs
    assert list(ours) == list(expected)
    assert ours["message"] == expected["message"]
    assert ours["exception"].args == (1,)
    assert isinstance(ours["handle"], asyncio.Handle)


def test_source_traceback_in_debug_mode(loop, reports):
    loop.set_debug(True)
    handle = loop.call_soon(lambda: 1 / 0)
    timer = loop.call_later(0, loop.stop)
    for each in (handle, timer):
        assert each._source_traceback[-1].name == "test_source_traceback_in_debug_mode"
    loop.run_forever()
    (report,) = reports.take()
    assert report["source_traceback"][-1].name == "test_source_traceback_in_debug_mode"


def test_cycle_through_a_handle_is_freed(loop):
    class Owner:
        def act(self):
            pass

    def one_of_each():
        soon, timer, cancelled = Owner(), Owner(), Owner()
        soon.handle = loop.call_soon(soon.act)
        timer.handle = loop.call_later(0, timer.act)
        cancelled.handle = loop.call_later(100, cancelled.act)
        cancelled.handle.cancel()
        return [weakref.ref(owner) for owner in (soon, timer, cancelled)]

    references = one_of_each()
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("way", ["soon", "threadsafe", "timer", "cancelled", "swept", "queued"])
def test_cycle_through_the_context_of_a_handle_is_freed(loop, way, debug):
    """As of a request that is in a context variable and has a timeout."""
    variable = contextvars.ContextVar("variable")

    class Request:
        """Has a handle."""

    def start():
        request = Request()
        variable.set(request)
        if way == "soon":
            request.handle = loop.call_soon(callback)
        elif way == "threadsafe":
            request.handle = loop.call_soon_threadsafe(callback)
        elif way == "timer":
            request.handle = loop.call_later(0, callback)
        elif way == "queued":
            request.handle = loop.call_soon(callback)
            request.handle.cancel()
        else:
            request.handle = loop.call_later(0 if way == "cancelled" else 100, callback)
            request.handle.cancel()
        if way == "swept":
            for _ in range(200):
                loop.call_later(100, callback).cancel()
        return weakref.ref(request)

    loop.set_debug(debug)
    reference = contextvars.copy_context().run(start)
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    gc.collect()
    assert reference() is None


def test_context_of_a_handle_that_is_done(loop):
    handle = loop.call_soon(callback)
    assert contextvars.ContextVar("variable", default=1) not in handle.get_context()
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert handle.get_context().run(int, "5") == 5
    assert not handle.cancelled()


def test_context_of_a_handle_that_cancels_itself(loop, reports):
    """What it raises is reported in the context all the same."""
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    def fails():
        handle.cancel()
        raise ValueError

    def report(loop, context):
        seen.append(context["handle"].get_context()[variable])

    variable.set("mine")
    loop.set_exception_handler(report)
    handle = loop.call_soon(fails)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert seen == ["mine"]


def test_a_handle_that_is_done_while_it_runs(loop, reports):
    """Somebody runs it by hand, and the loop has its turn meanwhile."""
    ran = []

    def turns():
        ran.append(contextvars.copy_context())
        loop._run_once()
        ran.append(handle.get_context())

    handle = loop.call_soon(turns)
    handle._run()
    assert len(ran) == 2
    reports.take()  # The loop could not enter its context; from 3.12 on not even to report that.
    handle._run()
    assert len(ran) == 2


def forgotten_callbacks(loop):
    loop.call_soon(loop.stop)
    loop.call_later(100, loop.stop)


def held_handles(loop):
    class Owner:
        def act(self):
            """Does nothing."""

    soon, timer, threadsafe = Owner(), Owner(), Owner()
    soon.handle = loop.call_soon(soon.act)
    timer.handle = loop.call_later(100, timer.act)
    threadsafe.handle = loop.call_soon_threadsafe(threadsafe.act)


def sleeping_tasks(loop):
    """Whose frames hold a timer."""
    for _ in range(3):
        loop.create_task(asyncio.sleep(100))
    loop.run_until_complete(asyncio.sleep(0))


def waiting_reader(loop):
    """It stands in the ready queue and with its descriptor."""
    read_end, write_end = os.pipe()
    file = open(read_end, "rb", 0)
    loop.add_reader(file, file.read, 1)
    os.write(write_end, b"xy")
    os.close(write_end)
    loop.run_until_complete(asyncio.sleep(0))
    loop.call_soon(loop.stop)
    loop._run_once()


@pytest.mark.parametrize(
    "prepare", [forgotten_callbacks, held_handles, sleeping_tasks, waiting_reader]
)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_unclosed_loop_with_waiting_callbacks_is_collected(prepare):
    import ouroloop

    loop = ouroloop.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    reference = weakref.ref(loop)
    prepare(loop)
    del loop
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        gc.collect()
    assert reference() is None
    gc.collect()  # What its tasks had.


def test_a_handle_whose_loop_was_collected():
    import ouroloop

    loop = ouroloop.new_event_loop()
    soon, timer = loop.call_soon(print), loop.call_later(100, print)
    del loop
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        gc.collect()
    assert soon._loop is timer._loop
    assert timer._loop.is_closed()
    for handle in soon, timer:
        assert not handle.cancelled()
        handle.cancel()
        assert handle.cancelled()


def test_a_loop_that_is_in_use_is_not_collected(loop):
    """Whatever holds its handles."""
    ran = []

    async def main():
        handles = [loop.call_soon(ran.append, 1), loop.call_later(0.001, ran.append, 2)]
        tasks = [asyncio.create_task(asyncio.sleep(0.002)) for _ in range(3)]
        for _ in range(3):
            gc.collect()
            await asyncio.sleep(0)
        await asyncio.wait(tasks)
        assert len(handles) == 2

    loop.run_until_complete(main())
    assert ran == [1, 2]
