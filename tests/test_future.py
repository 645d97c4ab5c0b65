"""csrc/future.c: Future against asyncio's own, on our loop, in debug mode and on asyncio's loop."""

import asyncio
import contextvars
import functools
import gc
import inspect
import re
import sys
import traceback
import weakref

import ouroloop
import pytest
from outcome import Outcome, stock_loop

if not ouroloop.build_info()["fast_types"]:
    pytest.skip("Future is asyncio's own here", allow_module_level=True)

VARIABLE = contextvars.ContextVar("variable", default="unset")


def debug_loop():
    loop = ouroloop.new_event_loop()
    loop.set_debug(True)
    return loop


def run_callbacks(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


class CallSoon(ouroloop.Loop):
    """A loop with a call_soon() of its own."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def call_soon(self, callback, *args, context=None):
        self.calls.append((callback, args, context))
        return super().call_soon(callback, *args, context=context)


CASES = []


def case(function):
    CASES.append(function)
    return function


def outcome_of(function, *args, **kwargs):
    """What a call comes to, in words."""
    try:
        return repr(function(*args, **kwargs))
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


@case
def states(new, loop):
    seen = []
    for finish in (
        None,
        lambda future: future.set_result(5),
        lambda future: future.set_result(None),
        lambda future: future.set_exception(ValueError("no")),
        lambda future: future.cancel(),
        lambda future: future.cancel("why"),
        lambda future: future.cancel(msg="why"),
    ):
        future = new()
        seen.append(outcome_of(finish, future) if finish else None)
        for name in ("done", "cancelled", "result", "exception", "cancel"):
            seen.append((name, outcome_of(getattr(future, name))))
        for name in ("_state", "_result", "_exception", "_cancel_message", "_log_traceback"):
            seen.append((name, repr(getattr(future, name))))
        seen.append(repr(future))
    return seen


@case
def finished_twice(new, loop):
    seen = []
    actions = [
        lambda future: future.set_result(1),
        lambda future: future.set_exception(OSError(1)),
        lambda future: future.cancel("once more"),
    ]
    for first in actions:
        for second in actions:
            future = new()
            seen += [outcome_of(first, future), outcome_of(second, future), repr(future)]
            future._log_traceback = False
    return seen


@case
def exceptions_to_set(new, loop):
    seen = []

    class Stop(StopIteration):
        pass

    class Picky(Exception):
        def __init__(self):
            raise RuntimeError("not made")

    class NotOne(Exception):
        def __new__(cls):
            return 5

    for exc in (
        ValueError,
        ValueError("instance"),
        KeyboardInterrupt(),
        GeneratorExit,
        asyncio.CancelledError("raised"),
        StopIteration,
        StopIteration(5),
        Stop(5),
        Stop,
        Picky,
        NotOne,
        None,
        5,
        int,
    ):
        future = new()
        seen.append(outcome_of(future.set_exception, exc))
        seen += [repr(future), repr(future._exception)]
        if future._exception is not None:
            seen.append(repr(future._exception.__cause__))
        future._log_traceback = False
    return seen


@case
def wrong_calls(new, loop):
    seen = []
    for name, args, kwargs in (
        ("set_result", (), {}),
        ("set_result", (1, 2), {}),
        ("set_result", (1,), {"context": 2}),
        ("set_exception", (), {}),
        ("set_exception", (ValueError(), 1), {}),
        ("cancel", (1, 2), {}),
        ("cancel", (1,), {"msg": 2}),
        ("cancel", (), {"message": 2}),
        ("cancel", (), {"msg": 1, "more": 2}),
        ("add_done_callback", (), {}),
        ("add_done_callback", (print, print), {}),
        ("add_done_callback", (print,), {"contex": None}),
        ("add_done_callback", (), {"fn": print}),
        ("remove_done_callback", (), {}),
        ("remove_done_callback", (1, 2), {}),
        ("result", (1,), {}),
        ("done", (1,), {}),
        ("cancelled", (1,), {"a": 1}),
    ):
        seen.append((name, outcome_of(getattr(new(), name), *args, **kwargs)))
    return seen


@case
def callbacks_in_order(new, loop):
    seen = []
    future = new()
    for n in range(5):
        future.add_done_callback(functools.partial(lambda n, future: seen.append(n), n))
    future.add_done_callback(lambda future: future.add_done_callback(lambda _: seen.append("late")))
    future.add_done_callback(lambda future: seen.append("last"))
    loop.call_soon(seen.append, "before")
    future.set_result(None)
    loop.call_soon(seen.append, "after")
    run_callbacks(loop)
    run_callbacks(loop)
    return seen


@case
def callbacks_in_contexts(new, loop):
    seen = []

    def note(future):
        seen.append(VARIABLE.get())
        VARIABLE.set("changed by a callback")

    future = new()
    own = contextvars.copy_context()
    own.run(VARIABLE.set, "own")
    token = VARIABLE.set("current")
    future.add_done_callback(note)
    future.add_done_callback(note, context=own)
    VARIABLE.reset(token)
    future.add_done_callback(note, context=own)
    future.add_done_callback(note)
    future.set_result(None)
    future.add_done_callback(note, context=own)
    run_callbacks(loop)
    return [*seen, own[VARIABLE], VARIABLE.get()]


@case
def callbacks_that_raise(new, loop):
    def fail(future):
        raise ValueError("from a callback")

    future = new()
    for _ in range(3):
        future.add_done_callback(fail)
    future.cancel()
    run_callbacks(loop)


@case
def removed_callbacks(new, loop):
    seen = []

    def one(future):
        seen.append("one")

    def two(future):
        seen.append("two")

    class Equal:
        def __init__(self, answer):
            self.answer = answer

        def __eq__(self, other):
            return self.answer()

        __hash__ = None

        def __call__(self, future):
            seen.append("equal")

    for callbacks in ([], [one], [two, one], [one, two, one, one], [two, two]):
        future = new()
        for callback in callbacks:
            future.add_done_callback(callback)
        seen.append(future.remove_done_callback(one))
        seen.append(future.remove_done_callback(one))
        future.set_result(None)
        run_callbacks(loop)
    future = new()
    future.add_done_callback(Equal(lambda: 1 / 0))
    seen.append(outcome_of(future.remove_done_callback, one))
    future = new()
    emptied = []

    def empty():
        # While a list is searched, it is emptied.
        if not emptied:
            emptied.append(True)
            future.remove_done_callback(two)
            future.cancel()
        return False

    for callback in (Equal(empty), Equal(empty), two, Equal(empty), two):
        future.add_done_callback(callback)
    seen.append(outcome_of(future.remove_done_callback, two))
    return [*seen, future._callbacks]


@case
def shown_callbacks(new, loop):
    future = new()
    seen = [future._callbacks]
    for count in range(4):
        future.add_done_callback(str)
        seen.append([callback for callback, context in future._callbacks] == [str] * (count + 1))
        seen.append(repr(future))
    seen.append({type(context).__name__ for callback, context in future._callbacks})
    future.cancel()
    seen.append(future._callbacks)
    return seen


@case
def never_retrieved(new, loop):
    for exc in (ValueError("unread"), SystemExit("unread")):
        future = new()
        future.set_exception(exc)
        del future
        gc.collect()
    for look in ("exception", "cancel", "_log_traceback"):
        future = new()
        future.set_exception(ValueError("read"))
        if look == "_log_traceback":
            future._log_traceback = False
        else:
            getattr(future, look)()
        del future
        gc.collect()


@case
def in_a_cycle(new, loop):
    future = new()
    future.cycle = [future]
    future.set_exception(ValueError("unread, in a cycle"))
    del future
    gc.collect()


@case
def uninitialized(new, loop):
    Future = type(new())
    future = Future.__new__(Future)
    seen = []
    for name in (
        "result",
        "exception",
        "done",
        "cancelled",
        "cancel",
        "get_loop",
        "__iter__",
        "__await__",
        "__repr__",
    ):
        seen.append((name, outcome_of(getattr(future, name))))
    for name in ("set_result", "set_exception", "add_done_callback", "remove_done_callback"):
        seen.append((name, outcome_of(getattr(future, name), ValueError())))
    for name in ("_state", "_callbacks", "_result", "_exception", "_loop", "_log_traceback"):
        seen.append((name, outcome_of(getattr, future, name)))
    return seen


@case
def made_again(new, loop):
    future = new()
    future.add_done_callback(print)
    seen = [outcome_of(future.__init__, loop=loop)]
    if sys.version_info < (3, 15):
        seen += [repr(future), future._callbacks]
        future.set_result(1)
        seen += [outcome_of(future.__init__, loop=loop), repr(future)]
    return seen


@case
def contexts_that_are_none(new, loop):
    class Odd:
        """What Handle needs of a context."""

        def run(self, callback, *args):
            return callback(*args)

    seen = []
    future = new()
    future.add_done_callback(seen.append, context=None)
    future.set_result(None)
    run_callbacks(loop)
    return len(seen)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("new_event_loop", [ouroloop.new_event_loop, debug_loop, stock_loop])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_asyncios(case, new_event_loop):
    def on_stock_loop(loop):
        loop.set_debug(new_event_loop is debug_loop)
        return case(lambda: asyncio.Future(loop=loop), loop)

    def on_loop(loop):
        return case(lambda: ouroloop.Future(loop=loop), loop)

    stock, ours = Outcome(on_stock_loop, stock_loop), Outcome(on_loop, new_event_loop)

    def without_places(line):
        # In debug mode a repr says where the future was made.
        line = re.sub(r" created at [^>)]*|future\.py:\d+", "", line)
        return line.replace("on_stock_loop", "on_loop").replace(
            "ouroloop.Future", "_asyncio.Future"
        )

    assert list(map(without_places, ours.lines())) == list(map(without_places, stock.lines()))


def test_passes_for_asyncios(loop):
    future = loop.create_future()
    assert type(future) is ouroloop.Future
    assert isinstance(future, asyncio.Future)
    assert issubclass(ouroloop.Future, asyncio.Future)
    assert asyncio.isfuture(future)
    assert asyncio.ensure_future(future, loop=loop) is future
    assert future.get_loop() is loop is future._loop
    assert ouroloop.Future[int].__origin__ is ouroloop.Future
    assert type(future).__module__ == "ouroloop"


def test_asyncios_methods_work_on_it(loop):
    seen = []
    future = loop.create_future()
    asyncio.Future.add_done_callback(future, seen.append)
    future.add_done_callback(seen.append)
    assert not asyncio.Future.done(future)
    asyncio.Future.set_result(future, 5)
    assert asyncio.Future.result(future) == future.result() == 5
    run_callbacks(loop)
    assert seen == [future, future]
    future = loop.create_future()
    assert asyncio.Future.cancel(future, msg="why")
    with pytest.raises(asyncio.CancelledError, match="why"):
        future.result()


def test_asyncios_method_wakes_a_task_that_waits(loop):
    async def wait(future):
        return await future, asyncio.current_task()

    future = loop.create_future()
    task = loop.create_task(wait(future))
    run_callbacks(loop)
    asyncio.Future.set_result(future, 5)
    assert loop.run_until_complete(task) == (5, task)


def test_has_the_methods_of_asyncios():
    for name in dir(asyncio.Future):
        assert hasattr(ouroloop.Future, name), name
    for name in ("set_result", "set_exception", "cancel", "result", "done", "cancelled"):
        ours, stock = getattr(ouroloop.Future, name), getattr(asyncio.Future, name)
        assert inspect.signature(ours) == inspect.signature(stock)
        assert inspect.getdoc(ours)


def test_type_cannot_be_changed():
    with pytest.raises(TypeError):
        ouroloop.Future.done = None


def test_callbacks_show_the_task_that_waits(loop):
    async def wait(future):
        await future

    future = loop.create_future()
    task = loop.create_task(wait(future))
    future.add_done_callback(print)
    run_callbacks(loop)
    (first, _), (wakeup, context) = future._callbacks
    assert first is print
    assert wakeup.__name__ == "task_wakeup"
    assert wakeup.__self__ is task
    assert isinstance(context, contextvars.Context)
    assert "task_wakeup" in repr(future)
    assert future.remove_done_callback(wakeup) == 1
    assert [callback for callback, _ in future._callbacks] == [print]
    future.remove_done_callback(print)
    future.set_result(None)
    loop.call_soon(wakeup, future)
    loop.run_until_complete(task)


@pytest.mark.parametrize("on", ["class", "instance"])
def test_call_soon_of_the_users_is_called(on):
    calls = []
    if on == "class":
        loop = CallSoon()
        calls = loop.calls
    else:
        loop = ouroloop.Loop()

        def call_soon(callback, *args, context=None):
            calls.append((callback, args, context))
            return ouroloop.Loop.call_soon(loop, callback, *args, context=context)

        loop.call_soon = call_soon

    async def wait(future):
        await future

    future = loop.create_future()
    context = contextvars.copy_context()
    task = loop.create_task(wait(future))
    ouroloop.Loop.call_soon(loop, loop.stop)
    loop.run_forever()
    future.add_done_callback(str, context=context)
    calls.clear()
    future.set_result(None)
    (wakeup, wakeup_args, _), (callback, args, used) = calls
    assert (wakeup.__self__, wakeup_args) == (task, (future,))
    assert (callback, args) == (str, (future,))
    assert used is context
    loop.run_until_complete(task)
    loop.close()


def test_call_soon_that_fails():
    loop = ouroloop.Loop()
    future = loop.create_future()
    future.add_done_callback(str)
    future.add_done_callback(str)
    loop.call_soon = lambda *args, context=None: 1 / 0
    with pytest.raises(ZeroDivisionError):
        future.set_result(1)
    assert (future.result(), future._callbacks) == (1, None)
    del loop.call_soon
    loop.close()


def test_closed_loop_takes_no_callback():
    loop = ouroloop.Loop()
    future = loop.create_future()
    future.add_done_callback(str)
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        future.set_result(1)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        future.add_done_callback(str)


def test_debug_mode_keeps_where_it_was_made(loop):
    loop.set_debug(True)
    future = loop.create_future()
    assert future._source_traceback[-1].name == "test_debug_mode_keeps_where_it_was_made"
    assert "created at" in repr(future)


def test_traceback_does_not_grow(loop):
    def lengths(future):
        try:
            raise ValueError("set")
        except ValueError as error:
            future.set_exception(error)
        found = []
        for _ in range(4):
            with pytest.raises(ValueError, match="set") as caught:
                future.result()
            found.append(len(traceback.extract_tb(caught.value.__traceback__)))
        return found

    assert lengths(loop.create_future()) == lengths(asyncio.Future(loop=loop))


def test_reused_object_is_new(loop):
    """Dead futures are used again: nothing of the old one may show."""
    future = loop.create_future()
    future.attribute = "old"
    dead = []
    weakref.finalize(future, dead.append, True)
    future.add_done_callback(str)
    future.set_exception(ValueError())
    run_callbacks(loop)
    future.exception()
    address = id(future)
    del future
    assert dead == [True]
    again = loop.create_future()
    assert id(again) == address
    assert not hasattr(again, "attribute")
    assert weakref.getweakrefcount(again) == 0
    assert (again.done(), again._callbacks, again._exception) == (False, None, None)
    assert not again._asyncio_future_blocking
    assert not again._log_traceback


def test_finalized_object_is_not_reused(loop, reports):
    """The garbage collector finalizes an object once; as another one it would be mute."""
    for _ in range(3):
        future = loop.create_future()
        future.cycle = future
        future.set_exception(ValueError("in a cycle"))
        del future
        gc.collect()
        assert len(reports.take()) == 1
    future = loop.create_future()
    future.set_exception(ValueError("alone"))
    del future
    assert len(reports.take()) == 1


def test_handler_may_resurrect(loop):
    kept = []
    loop.set_exception_handler(lambda loop, context: kept.append(context["future"]))
    future = loop.create_future()
    future.set_exception(ValueError("kept"))
    del future
    (future,) = kept
    with pytest.raises(ValueError, match="kept"):
        future.result()
    kept.clear()
    del future
    gc.collect()
    assert kept == []


def test_subclass(loop, reports):
    class Mine(ouroloop.Future):
        __slots__ = ("extra",)
        deleted = 0

        def __init__(self, extra, **kwargs):
            super().__init__(**kwargs)
            self.extra = extra

        def result(self):
            return "mine", super().result()

        def __del__(self):
            type(self).deleted += 1

    future = Mine(5, loop=loop)
    assert (future.extra, repr(future)) == (5, "<Mine pending>")
    future.set_result(6)
    assert loop.run_until_complete(future) == ("mine", 6)
    reference = weakref.ref(future)
    del future
    assert reference() is None
    assert Mine.deleted == 1
    future = Mine(5, loop=loop)
    future.cycle = future
    del future
    gc.collect()
    assert Mine.deleted == 2


def test_subclass_of_a_subclass_is_collected(loop, reports):
    class One(ouroloop.Future):
        pass

    class Two(One):
        pass

    future = Two(loop=loop)
    future.set_exception(ValueError())
    future.cycle = future
    reference = weakref.ref(Two)
    del future, Two
    gc.collect()
    (report,) = reports.take()
    assert report["message"] == "Two exception was never retrieved"
    del report
    gc.collect()
    assert reference() is None


def test_done_by_a_call_soon_that_looks_on():
    """A call_soon() of the user's sees the future done, and may do anything to it."""
    loop = ouroloop.Loop()
    future = loop.create_future()
    seen = []

    def call_soon(callback, *args, context=None):
        seen.append((future.done(), future._callbacks, future.remove_done_callback(str)))
        future.add_done_callback(str) if len(seen) < 3 else None

    for _ in range(3):
        future.add_done_callback(str)
    loop.call_soon = call_soon
    future.cancel()
    assert set(seen) == {(True, None, 0)}
    assert len(seen) == 5
    del loop.call_soon
    loop.close()


def test_resolve_leaves_done_futures_alone(loop):
    """asyncio.sleep() sets the result of its future from a timer, unless it is cancelled."""

    async def main():
        task = asyncio.create_task(asyncio.sleep(0.001, "result"))
        assert await task == "result"
        task = asyncio.create_task(asyncio.sleep(0.001))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0.005)
        return task.cancelled()

    assert loop.run_until_complete(main())


def test_a_future_type_put_in_the_place_of_asyncios(loop, monkeypatch):
    """asyncio's loops look futures.Future up at each call, and nest_asyncio replaces it."""
    stock = asyncio.futures.Future
    for Type in (type("Own", (asyncio.futures._PyFuture,), {}), type("OwnC", (stock,), {})):
        monkeypatch.setattr(asyncio.futures, "Future", Type)
        for debug in (False, True):
            loop.set_debug(debug)
            future = loop.create_future()
            assert type(future) is Type
            assert future.get_loop() is loop
            loop.call_soon(future.set_result, "result")
            assert loop.run_until_complete(future) == "result"
        loop.set_debug(False)
        # What waits inside of the loop.
        assert loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80))
    for Type in (ouroloop.Future, stock):
        monkeypatch.setattr(asyncio.futures, "Future", Type)
        assert type(loop.create_future()) is ouroloop.Future

    def refuse(**kwargs):
        del asyncio.futures.Future
        raise ZeroDivisionError(kwargs)

    monkeypatch.setattr(asyncio.futures, "Future", refuse)
    with pytest.raises(ZeroDivisionError, match="loop"):
        loop.create_future()
    assert type(loop.create_future()) is ouroloop.Future
    asyncio.futures.Future = stock
