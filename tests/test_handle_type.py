"""csrc/handle_type.c: what Python sees of handles, against asyncio's own."""

import asyncio
import contextvars
import heapq
import re
import sys
import threading
import weakref

import pytest


@pytest.fixture
def stock():
    loop = asyncio.SelectorEventLoop()
    yield loop
    loop.close()


def callback(*args):
    return args


def names_and_numbers(text):
    """A repr without what differs between two runs of the same line."""
    return re.sub(r"when=[\d.]+|:\d+", "_", text)


def test_handles_pass_for_asyncios(loop):
    handle = loop.call_soon(callback)
    timer = loop.call_later(10, callback)
    assert isinstance(handle, asyncio.Handle)
    assert not isinstance(handle, asyncio.TimerHandle)
    assert isinstance(timer, asyncio.TimerHandle)
    assert isinstance(timer, asyncio.Handle)
    handle.cancel()
    timer.cancel()


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("args", [(), (1,), (1, "two"), ((),)])
def test_repr_is_asyncios(loop, stock, debug, cancelled, args):
    texts = []
    for each in (stock, loop):
        each.set_debug(debug)
        for handle in (each.call_soon(callback, *args), each.call_later(5, callback, *args)):
            if cancelled:
                handle.cancel()
            texts.append(names_and_numbers(repr(handle)))
            handle.cancel()
    assert texts[:2] == texts[2:]


def test_attributes(loop):
    context = contextvars.copy_context()
    handle = loop.call_soon(callback, 1, 2, context=context)
    assert handle.get_context() is context
    assert handle._callback is callback
    assert handle._args == (1, 2)
    assert handle._loop is loop
    assert handle._source_traceback is None
    assert handle._cancelled is False
    handle.cancel()


def test_weak_references(loop):
    handle = loop.call_soon(callback)
    timer = loop.call_later(0, callback)
    references = [weakref.ref(handle), weakref.ref(timer)]
    assert references[0]() is handle
    del handle, timer
    loop.call_later(0.001, loop.stop)
    loop.run_forever()
    assert [reference() for reference in references] == [None, None]


def test_order_and_equality_of_timers(loop):
    now = loop.time()
    early, late, twin = (loop.call_at(now + delay, callback) for delay in (5, 9, 5))
    stock = asyncio.TimerHandle(now + 7, callback, (), loop)
    assert early < late
    assert late > early
    assert early <= twin
    assert early == twin
    assert early != late
    assert early < stock < late
    assert stock > early
    assert (early == 3) is False
    with pytest.raises(TypeError):
        assert early < 3
    assert hash(early) == hash(early.when())
    assert sorted([late, stock, early]) == [early, stock, late]
    heap = [late, stock, early]
    heapq.heapify(heap)
    assert heap[0] is early
    for timer in (early, late, twin):
        timer.cancel()


def test_handles_cannot_be_made_by_hand(loop):
    import ouroloop._core

    with pytest.raises(TypeError):
        type(loop.call_soon(callback))()
    assert not hasattr(ouroloop._core, "Handle")


def call_from_a_thread(loop, callback, then):
    """Have a thread post the callback and hand its handle to `then`."""
    errors = []

    def run():
        try:
            then(loop.call_soon_threadsafe(callback))
        except BaseException as exc:
            errors.append(exc)
        finally:
            loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=run)
    thread.start()
    loop.run_forever()
    thread.join()
    assert errors == []


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio's handle waits since Python 3.14")
@pytest.mark.parametrize("method", ["cancel", "cancelled"])
def test_other_threads_wait_for_a_running_callback(loop, method):
    started = threading.Event()
    go_on = threading.Event()
    finished = []

    def callback():
        started.set()
        go_on.wait(10)
        finished.append(True)

    def cancel(handle):
        assert isinstance(handle, asyncio.events._ThreadSafeHandle)
        started.wait()
        threading.Timer(0.05, go_on.set).start()
        assert not getattr(handle, method)()
        assert finished == [True]

    call_from_a_thread(loop, callback, cancel)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio's handle waits since Python 3.14")
def test_a_callback_does_not_wait_for_itself(loop):
    handles = []
    posted = threading.Event()
    results = []

    def callback():
        posted.wait()
        handles[0].cancel()
        results.append(handles[0].cancelled())

    def keep(handle):
        handles.append(handle)
        posted.set()

    call_from_a_thread(loop, callback, keep)
    assert results == [True]


def test_another_thread_cancels_what_has_not_started(loop):
    ran = []
    cancelled = threading.Event()
    loop.call_soon(cancelled.wait)

    def cancel(handle):
        handle.cancel()
        assert handle.cancelled()
        cancelled.set()

    call_from_a_thread(loop, lambda: ran.append(1), cancel)
    assert ran == []
