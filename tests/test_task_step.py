"""csrc/task_step.c: what a coroutine may yield, what wakes a task, and where its errors go."""

import asyncio
import contextvars
import gc
import re
import sys
import types
from asyncio import futures, tasks

import ouroloop
import pytest
from outcome import Outcome, stock_loop

if not ouroloop.build_info()["fast_types"]:
    pytest.skip("Task is asyncio's own here", allow_module_level=True)

VARIABLE = contextvars.ContextVar("variable", default="unset")

FUTURES = [ouroloop.Future, asyncio.Future, futures._PyFuture]
TASKS = [ouroloop.Task, asyncio.Task, tasks._PyTask]


class OurFuture(ouroloop.Future):
    pass


class StockFuture(asyncio.Future):
    pass


class OurTask(ouroloop.Task):
    pass


class StockTask(asyncio.Task):
    pass


FUTURES += [OurFuture, StockFuture]
TASKS += [OurTask, StockTask]


def full_name(cls):
    return f"{cls.__module__.strip('_')}.{cls.__name__}"


def debug_loop():
    loop = ouroloop.new_event_loop()
    loop.set_debug(True)
    return loop


def closing(new_event_loop):
    loop = new_event_loop()
    yield loop
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@pytest.fixture(params=[ouroloop.new_event_loop, debug_loop, stock_loop])
def any_loop(request):
    """Ours, ours in debug mode, and asyncio's."""
    yield from closing(request.param)


def run_callbacks(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def words(function, *args, **kwargs):
    try:
        return repr(function(*args, **kwargs))
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("Future", FUTURES, ids=full_name)
@pytest.mark.parametrize("Task", TASKS, ids=full_name)
class TestMixed:
    """Each kind of task waits for each kind of future."""

    def test_result(self, any_loop, Task, Future):
        async def wait():
            return await future

        future = Future(loop=any_loop)
        tasks = [Task(wait(), loop=any_loop) for _ in range(3)]
        any_loop.call_later(0.001, future.set_result, 5)
        assert any_loop.run_until_complete(asyncio.gather(*tasks)) == [5, 5, 5]
        assert future._callbacks in (None, [])

    def test_exception(self, any_loop, Task, Future):
        async def wait():
            await future

        future = Future(loop=any_loop)
        task = Task(wait(), loop=any_loop)
        any_loop.call_soon(any_loop.call_soon, future.set_exception, KeyError("set"))
        with pytest.raises(KeyError, match="set"):
            any_loop.run_until_complete(task)

    def test_cancel_the_future(self, any_loop, Task, Future):
        async def wait():
            try:
                await future
            except asyncio.CancelledError as error:
                return error.args

        future = Future(loop=any_loop)
        task = Task(wait(), loop=any_loop)
        any_loop.call_soon(any_loop.call_soon, future.cancel, "why")
        assert any_loop.run_until_complete(task) == ("why",)

    def test_cancel_the_task(self, any_loop, Task, Future):
        async def wait():
            try:
                await future
            finally:
                ended.append(future.cancelled())

        ended = []
        future = Future(loop=any_loop)
        task = Task(wait(), loop=any_loop)
        run_callbacks(any_loop)
        assert task._fut_waiter is future
        assert task.cancel("why")
        with pytest.raises(asyncio.CancelledError):
            any_loop.run_until_complete(task)
        assert ended == [True]

    def test_done_already(self, any_loop, Task, Future):
        async def wait():
            return await future

        future = Future(loop=any_loop)
        future.set_result(5)
        assert any_loop.run_until_complete(Task(wait(), loop=any_loop)) == 5

    def test_task_waits_for_task(self, any_loop, Task, Future):
        async def wait(awaitable):
            return await awaitable

        future = Future(loop=any_loop)
        task = Task(wait(future), loop=any_loop)
        for Outer in TASKS:
            task = Outer(wait(task), loop=any_loop)
        any_loop.call_later(0.001, future.set_result, "through all")
        assert any_loop.run_until_complete(task) == "through all"

    def test_many_times(self, any_loop, Task, Future):
        async def ping_pong(me):
            for _ in range(20):
                seen.append((me, await pair[me]))
                pair[me] = Future(loop=any_loop)
                pair[1 - me].set_result(len(seen))

        seen = []
        pair = [Future(loop=any_loop), Future(loop=any_loop)]
        both = [Task(ping_pong(n), loop=any_loop) for n in (0, 1)]
        pair[0].set_result("go")
        any_loop.run_until_complete(asyncio.wait(both))
        assert [me for me, _ in seen] == [0, 1] * 20


class Custom:
    """A future by asyncio's protocol alone."""

    _asyncio_future_blocking = False

    def __init__(self, loop):
        self._loop = loop
        self.callbacks = []
        self.value = None
        self.cancelled_with = []

    def get_loop(self):
        return self._loop

    def add_done_callback(self, callback, *, context=None):
        self.callbacks.append((callback, context))

    def cancel(self, msg=None):
        self.cancelled_with.append(msg)
        return False

    def set_result(self, value):
        self.value = value
        for callback, context in self.callbacks:
            self._loop.call_soon(callback, self, context=context)

    def result(self):
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value

    def __await__(self):
        self._asyncio_future_blocking = True
        yield self
        return self.result()


def test_custom_future(any_loop):
    async def wait():
        return await custom

    custom = Custom(any_loop)
    task = ouroloop.Task(wait(), loop=any_loop)
    run_callbacks(any_loop)
    ((callback, context),) = custom.callbacks
    assert callback.__self__ is task
    assert isinstance(context, contextvars.Context)
    assert custom._asyncio_future_blocking is False
    task.cancel("not now")
    assert custom.cancelled_with == ["not now"]
    custom.set_result(5)
    with pytest.raises(asyncio.CancelledError) as caught:
        any_loop.run_until_complete(task)
    # Before 3.11 a task does not pass on the message it was cancelled with.
    assert caught.value.args == (("not now",) if sys.version_info >= (3, 11) else ())


@pytest.mark.parametrize("value", [5, None, ValueError("set"), asyncio.CancelledError("set")])
def test_custom_future_with(any_loop, value):
    async def wait():
        try:
            return await custom
        except BaseException as error:
            return error

    custom = Custom(any_loop)
    task = ouroloop.Task(wait(), loop=any_loop)
    run_callbacks(any_loop)
    custom.set_result(value)
    assert any_loop.run_until_complete(task) is value


def test_custom_future_without_get_loop(any_loop):
    class Old(Custom):
        get_loop = property()

    async def wait():
        return await custom

    custom = Old(any_loop)
    task = ouroloop.Task(wait(), loop=any_loop)
    run_callbacks(any_loop)
    custom.set_result(5)
    assert any_loop.run_until_complete(task) == 5


CASES = []


def case(function):
    CASES.append(function)
    return function


@case
def wrong_yields(new, loop):
    seen = []

    class Broken:
        @property
        def _asyncio_future_blocking(self):
            raise ZeroDivisionError

    class NoTruth:
        class _asyncio_future_blocking:
            def __bool__(self):
                raise ZeroDivisionError

        _asyncio_future_blocking = _asyncio_future_blocking()

    class NoLoop:
        _asyncio_future_blocking = True

    class ReadOnly(Custom):
        @property
        def _asyncio_future_blocking(self):
            return True

        def __init__(self):
            self._loop = loop

    class NoCallbacks:
        _asyncio_future_blocking = True
        _loop = loop

    def generator():
        yield

    @types.coroutine
    def give(value):
        try:
            yield value
        except RuntimeError as error:
            seen.append(re.sub(r"<[\w.<>]*wrong_yields[^>]*>", "<it>", str(error)))

    async def body(value):
        await give(value)
        return "went on"

    other = asyncio.SelectorEventLoop()
    foreign, foreign_subclass = other.create_future(), StockFuture(loop=other)
    for future in (foreign, foreign_subclass):
        future._asyncio_future_blocking = True
    for value in (
        5,
        "text",
        generator(),
        loop.create_future(),
        StockFuture(loop=loop),
        Broken(),
        NoTruth(),
        NoLoop(),
        ReadOnly(),
        NoCallbacks(),
        Custom(loop),
        foreign,
        foreign_subclass,
        Custom(other),
        NotImplemented,
    ):
        task = new(body(value))
        loop.run_until_complete(asyncio.wait([task], timeout=0.01))
        seen.append((type(value).__name__, task.done()))
        if not task.done():
            # It was not to blame: asyncio reports it and leaves the task alone.
            task._log_destroy_pending = False
            task.get_coro().close()
    other.close()
    return seen


@case
def awaits_itself(new, loop):
    tasks = []

    async def body():
        await tasks[0]

    tasks.append(new(body()))
    return words(loop.run_until_complete, tasks[0])


@case
def ends(new, loop):
    seen = []

    class Base(BaseException):
        pass

    class Stop(StopIteration):
        pass

    async def body(exc):
        raise exc

    for exc in (
        ValueError("plain"),
        Base("base"),
        GeneratorExit("generator"),
        StopIteration("stop"),
        StopAsyncIteration("stop"),
        asyncio.CancelledError(),
        asyncio.CancelledError("with", "arguments"),
        asyncio.TimeoutError(),
        KeyboardInterrupt("key"),
        SystemExit(5),
    ):
        task = new(body(exc))
        seen.append(words(loop.run_until_complete, task))
        seen += [repr(task), words(task.result), words(task.exception)]

    class Ends:
        """A coroutine that is none of Python's."""

        def __init__(self, exc):
            self.exc = exc

        def send(self, value):
            raise self.exc

        throw = send

        def close(self):
            pass

        def __await__(self):
            return iter(())

    for exc in (StopIteration(5), StopIteration((1, 2)), Stop(5), StopIteration(), KeyError(1)):
        seen.append(words(loop.run_until_complete, new(Ends(exc))))
        task = new(Ends(exc))
        task.cancel()
        seen.append(words(loop.run_until_complete, task))
    return seen


@case
def awaits_what_is_cancelled(new, loop):
    """One and the same error goes through all who wait, each with its own traceback."""

    async def inner():
        await asyncio.sleep(10)

    async def outer(task):
        await task

    innermost = task = new(inner())
    for _ in range(3):
        task = new(outer(task))
    run_callbacks(loop)
    innermost.cancel("through all")
    return [words(loop.run_until_complete, task), words(innermost.result), words(task.exception)]


@case
def errors_in_callers_handling(new, loop):
    """Run from inside an except block, which the errors of tasks have nothing to do with."""

    async def fail():
        raise ValueError("in a task")

    async def body(task):
        try:
            await task
        except ValueError as error:
            return repr(error.__context__)

    try:
        raise KeyError("outside")
    except KeyError:
        return loop.run_until_complete(new(body(new(fail()))))


@case
def tracebacks_of_many_waiters(new, loop):
    async def fail():
        raise ValueError("for many")

    async def body(task):
        try:
            await task
        except ValueError as error:
            lines, traceback = [], error.__traceback__
            while traceback is not None:
                lines.append(traceback.tb_frame.f_code.co_name)
                traceback = traceback.tb_next
            return lines

    failing = new(fail())
    waiters = [new(body(failing)) for _ in range(4)]
    loop.run_until_complete(asyncio.wait(waiters))
    return [task.result() for task in waiters]


@case
def contexts(new, loop):
    seen = []

    async def body(n):
        VARIABLE.set(n)
        await asyncio.sleep(0)
        seen.append((n, VARIABLE.get()))
        loop.call_soon(lambda: seen.append(("callback", n, VARIABLE.get())))
        await asyncio.sleep(0)
        raise ValueError(n)

    tasks = [new(body(n)) for n in range(3)]
    loop.run_until_complete(asyncio.wait(tasks))
    return [*seen, [words(task.exception) for task in tasks], VARIABLE.get()]


@case
def context_left_in_disorder(new, loop):
    inner = contextvars.copy_context()

    @types.coroutine
    def body():
        # A generator that is suspended inside of Context.run().
        yield
        return inner.run(VARIABLE.get)

    return loop.run_until_complete(new(body()))


@case
def cancel_that_raises(new, loop):
    class Refuses(Custom):
        def cancel(self, msg=None):
            raise ZeroDivisionError("cancel")

    async def body(future):
        asyncio.current_task().cancel("before it waits")
        await future

    custom = Refuses(loop)
    task = new(body(custom))
    run_callbacks(loop)
    seen = [repr(task._must_cancel), words(task.cancel)]
    custom.set_result(5)
    seen.append(words(loop.run_until_complete, task))
    return seen


@case
def cancelled_while_it_runs(new, loop):
    """The future that it then waits for is cancelled instead."""

    async def body(make):
        asyncio.current_task().cancel("while it runs")
        try:
            await make()
        except asyncio.CancelledError as error:
            return error.args

    return [
        words(loop.run_until_complete, new(body(make)))
        for make in (
            loop.create_future,
            lambda: StockFuture(loop=loop),
            lambda: asyncio.sleep(10),
            lambda: new(asyncio.sleep(10)),
        )
    ]


class New:
    def __init__(self, type, loop):
        self.type, self.loop = type, loop

    def __call__(self, coro):
        return self.type(coro, loop=self.loop)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("new_event_loop", [ouroloop.new_event_loop, debug_loop, stock_loop])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_asyncios(case, new_event_loop):
    def on_stock_loop(loop):
        loop.set_debug(new_event_loop is debug_loop)
        return case(New(asyncio.Task, loop), loop)

    def on_loop(loop):
        return case(New(ouroloop.Task, loop), loop)

    def without_places(line):
        line = re.sub(r"(, |\s)created at [^>),]*", "", line)
        line = line.replace("on_stock_loop", "on_loop").replace("ouroloop.", "_asyncio.")
        return re.sub(r"\.py:\d+", ".py", line)

    stock, ours = Outcome(on_stock_loop, stock_loop), Outcome(on_loop, new_event_loop)
    assert list(map(without_places, ours.lines())) == list(map(without_places, stock.lines()))


@pytest.mark.parametrize("exc", [KeyboardInterrupt, SystemExit])
def test_exit_leaves_run_forever(any_loop, exc):
    async def leave():
        raise exc("leave")

    seen = []
    task = ouroloop.Task(leave(), loop=any_loop)
    any_loop.call_soon(seen.append, "not before the next run")
    with pytest.raises(exc, match="leave"):
        any_loop.run_forever()
    assert task.done()
    with pytest.raises(exc):
        task.result()
    run_callbacks(any_loop)
    assert seen == ["not before the next run"]


def test_exit_through_a_future(any_loop):
    async def wait():
        await future

    future = ouroloop.Future(loop=any_loop)
    task = ouroloop.Task(wait(), loop=any_loop)
    any_loop.call_soon(any_loop.call_soon, future.set_exception, SystemExit(3))
    with pytest.raises(SystemExit):
        any_loop.run_until_complete(task)


def test_steps_go_past_call_soon(loop):
    """What makes it fast: no call, no Handle, no Context.run() for a step or a wake-up."""
    called = []

    class Watched(ouroloop.Loop):
        def _log_if_slow(self, handle, seconds):
            called.append(handle)

    async def body():
        await asyncio.sleep(0)
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, None)
        await future

    watched = Watched()
    watched.run_until_complete(body())
    watched.close()
    before = len(gc.get_objects())
    tasks = [loop.create_task(body()) for _ in range(100)]
    kinds = {type(made) for made in gc.get_objects()[before:]}
    assert asyncio.Handle not in kinds
    loop.run_until_complete(asyncio.wait(tasks))


def test_slow_step_is_logged_by_its_task(caplog):
    async def slow():
        await asyncio.sleep(0)

    loop = debug_loop()
    loop.slow_callback_duration = 0
    with caplog.at_level("WARNING", "asyncio"):
        loop.run_until_complete(loop.create_task(slow(), name="the slow one"))
    loop.close()
    assert any(
        re.match(r"Executing <Task (pending|finished) name='the slow one'", message)
        for message in caplog.messages
    ), caplog.messages


def test_debug_mode_switched_while_it_waits(loop):
    async def body():
        for debug in (True, False, True, False):
            loop.set_debug(debug)
            await asyncio.sleep(0)
            future = loop.create_future()
            loop.call_soon(future.set_result, debug)
            assert await future is debug
        return "done"

    assert loop.run_until_complete(body()) == "done"


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="refused since 3.15")
@pytest.mark.filterwarnings("ignore")
def test_made_again_for_another_loop():
    """A step that waits on one loop finds the task on another: asyncio's checks decide."""

    async def nothing():
        return 5

    for other in (stock_loop(), ouroloop.new_event_loop()):
        first, reports = ouroloop.new_event_loop(), []
        for each in (first, other):
            each.set_exception_handler(lambda loop, context, to=reports: to.append(context))
        task = first.create_task(nothing())
        coro = task.get_coro()
        ouroloop.Task.__init__(task, nothing(), loop=other)
        run_callbacks(first)
        # It does the step, and the other finds it done; since 3.14 it refuses.
        done_by_first = sys.version_info < (3, 14)
        assert task.done() == done_by_first
        run_callbacks(other)
        assert task.result() == 5
        if done_by_first:
            assert [type(each["exception"]) for each in reports] == [asyncio.InvalidStateError]
        coro.close()
        del task
        first.close()
        other.close()
    gc.collect()


def test_traceback_of_a_task_shows_only_its_own_frames(loop):
    async def inner():
        raise ValueError("inside")

    async def outer():
        await inner()

    task = loop.create_task(outer())
    with pytest.raises(ValueError, match="inside") as caught:
        loop.run_until_complete(task)
    names = [entry.name for entry in caught.traceback]
    assert names[-2:] == ["outer", "inner"]


def test_asyncgen_and_context_managers(loop):
    """Coroutines that suspend in places other than a plain await."""

    async def numbers():
        for n in range(3):
            await asyncio.sleep(0)
            yield n

    class Manager:
        async def __aenter__(self):
            await asyncio.sleep(0)
            return self

        async def __aexit__(self, *exc_info):
            await asyncio.sleep(0)

    async def main():
        async with Manager():
            return [n async for n in numbers()]

    assert loop.run_until_complete(main()) == [0, 1, 2]
