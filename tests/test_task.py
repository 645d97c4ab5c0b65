"""csrc/task.c: Task against asyncio's own: how it is made, what it answers, how it dies."""

import asyncio
import contextvars
import functools
import gc
import inspect
import io
import re
import sys
import types
import weakref

import ouroloop
import pytest
from outcome import Outcome, stock_loop

if not ouroloop.build_info()["fast_types"]:
    pytest.skip("Task is asyncio's own here", allow_module_level=True)

VARIABLE = contextvars.ContextVar("variable", default="unset")

CASES = []


def case(function):
    CASES.append(function)
    return function


def debug_loop():
    loop = ouroloop.new_event_loop()
    loop.set_debug(True)
    return loop


def run_callbacks(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


async def nothing():
    return None


async def give(value):
    return value


async def wait(future):
    return await future


async def fail(exc):
    raise exc


def words(function, *args, **kwargs):
    try:
        return repr(function(*args, **kwargs))
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


@types.coroutine
def generator_based():
    yield
    return "from a generator"


class Coroutine:
    """A coroutine by its methods, as Cython makes them."""

    def __init__(self):
        self.sent = 0

    def send(self, value):
        self.sent += 1
        if self.sent == 2:
            raise StopIteration("from an object")

    def throw(self, *args):
        raise args[0]

    def close(self):
        pass

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)


@case
def kinds_of_coroutines(new, loop):
    return [
        words(lambda make: loop.run_until_complete(new(make())), make)
        for make in (nothing, functools.partial(give, 5), generator_based, Coroutine)
    ]


@case
def no_coroutines(new, loop):
    async def agen():
        yield

    return [
        words(new, what)
        for what in (None, 5, "text", nothing, loop.create_future(), agen(), iter([1]), {}, type)
    ]


@case
def wrong_arguments(new, loop):
    Task = new.type
    seen = []
    for args, kwargs in (
        ((), {}),
        ((5, loop), {}),
        ((5,), {"lop": loop}),
        ((5,), {"coro": 5}),
        ((), {"coro": 5, "loop": loop}),
        ((5,), {"loop": loop, "name": "x", "context": None, "more": 1}),
        ((5,), {"loop": 5}),
    ):
        seen.append(words(Task, *args, **kwargs))
    return seen


@case
def names(new, loop):
    class Name(str):
        pass

    class Odd:
        def __str__(self):
            return "odd"

    class Bad:
        def __str__(self):
            raise ZeroDivisionError

    seen = []
    for name in ("text", "", Name("of a subclass"), Odd(), 5, None):
        task = new(nothing(), name=name)
        got = task.get_name()
        seen += [got if name is not None else got[:5], type(got).__name__, repr(task)]
        loop.run_until_complete(task)
    coro = nothing()
    seen.append(words(new, coro, name=Bad()))
    task = new(nothing())
    task.set_name(7)
    seen += [task.get_name(), words(task.set_name, Bad()), task.get_name(), words(task.set_name)]
    loop.run_until_complete(task)
    coro.close()
    return seen


@case
def answers_while_it_runs(new, loop):
    seen = []

    async def inner(task):
        seen.append(answers(task))
        await asyncio.sleep(0)

    async def outer():
        task = asyncio.current_task()
        await inner(task)
        seen.append(answers(task))
        return 5

    def answers(task):
        return [
            words(getattr(task, name))
            for name in (
                "done",
                "cancelled",
                "result",
                "exception",
                "get_coro",
                "__repr__",
                "cancelling",
                "get_context",
            )
            if hasattr(task, name)
        ] + [repr(task._fut_waiter), repr(task._coro), task._must_cancel]

    task = new(outer())
    seen.append(answers(task))
    loop.run_until_complete(task)
    seen.append(answers(task))
    output = io.StringIO()
    task.print_stack(file=output)
    return [seen, output.getvalue()]


@case
def stacks(new, loop):
    future = loop.create_future()

    async def waits():
        await wait(future)

    async def fails():
        await fail(ValueError("in a stack"))

    seen = []
    waiting, failing = new(waits(), name="waits"), new(fails(), name="fails")
    run_callbacks(loop)
    for task in (waiting, failing):
        for limit in (None, 1):
            seen.append([frame.f_code.co_name for frame in task.get_stack(limit=limit)])
        output = io.StringIO()
        task.print_stack(file=output)
        seen.append(re.sub(r"line \d+", "line", output.getvalue()))
    future.set_result(None)
    loop.run_until_complete(waiting)
    failing.exception()
    return seen


@case
def refused(new, loop):
    task = new(nothing())
    seen = [
        words(task.set_result, 5),
        words(task.set_exception, ValueError()),
        words(task.set_result),
        words(setattr, task, "_coro", None),
        words(setattr, task, "_log_traceback", True),
    ]
    loop.run_until_complete(task)
    return seen


@case
def cancelled_before_it_starts(new, loop):
    ran = []

    async def body():
        ran.append(True)

    task = new(body())
    seen = [task.cancel("first"), task.cancel("second"), task._must_cancel, repr(task)]
    seen.append(words(loop.run_until_complete, task))
    return [*seen, ran, task.cancel(), words(task.result), words(task.exception)]


@case
def cancelled_many_times(new, loop):
    seen = []

    async def stubborn():
        for _ in range(3):
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError as error:
                seen.append(error.args)
        return "done"

    task = new(stubborn())
    for n in range(3):
        run_callbacks(loop)
        seen.append(task.cancel(f"message {n}"))
        if sys.version_info >= (3, 11):
            seen.append(task.cancelling())
    seen.append(words(loop.run_until_complete, task))
    if sys.version_info >= (3, 11):
        seen += [task.uncancel() for _ in range(4)]
    return seen


@case
def cancels_itself(new, loop):
    async def then_returns():
        asyncio.current_task().cancel("returns")
        return 5

    async def then_waits():
        asyncio.current_task().cancel("waits")
        await asyncio.sleep(10)

    async def then_yields():
        asyncio.current_task().cancel("yields")
        await asyncio.sleep(0)
        return "not reached"

    async def then_raises():
        asyncio.current_task().cancel("raises")
        raise ValueError("more important")

    async def uncancels():
        asyncio.current_task().cancel("taken back")
        asyncio.current_task().uncancel()
        await asyncio.sleep(0)
        return 5

    bodies = [then_returns, then_waits, then_yields, then_raises]
    if sys.version_info >= (3, 11):
        bodies.append(uncancels)
    return [words(loop.run_until_complete, new(body())) for body in bodies]


@case
def destroyed_while_pending(new, loop):
    for start in (False, True):
        future = loop.create_future()
        task = new(wait(future))
        if start:
            run_callbacks(loop)
            # The cycle of task, coroutine and future is all there is.
            del task, future
            gc.collect()
        else:
            loop.run_until_complete(asyncio.wait([task], timeout=0))
            task._log_destroy_pending = False
            del task, future
            gc.collect()


@case
def never_retrieved(new, loop):
    for exc in (ValueError("unread"), asyncio.CancelledError("unread")):
        task = new(fail(exc))
        run_callbacks(loop)
        del task
        gc.collect()


@case
def uninitialized(new, loop):
    task = new.type.__new__(new.type)
    # Not get_coro() and what needs it: several versions of CPython crash there.
    names = ("result", "done", "cancelled", "exception", "get_name", "_make_cancelled_error")
    seen = [(name, words(getattr(task, name))) for name in names]
    for name in ("_coro", "_fut_waiter", "_must_cancel", "_log_destroy_pending", "_state"):
        seen.append((name, words(getattr, task, name)))
    return seen


class New:
    def __init__(self, type, loop):
        self.type, self.loop = type, loop

    def __call__(self, coro, **kwargs):
        return self.type(coro, loop=self.loop, **kwargs)


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
        # In debug mode a repr says where the task was made.
        line = re.sub(r"(, |\s)created at [^>),]*", "", line)
        line = line.replace("on_stock_loop", "on_loop").replace("ouroloop.", "_asyncio.")
        return re.sub(r"\.py:\d+", ".py", line)

    stock, ours = Outcome(on_stock_loop, stock_loop), Outcome(on_loop, new_event_loop)
    assert list(map(without_places, ours.lines())) == list(map(without_places, stock.lines()))


def test_passes_for_asyncios(loop):
    task = loop.create_task(nothing())
    assert type(task) is ouroloop.Task
    assert isinstance(task, asyncio.Task)
    assert isinstance(task, ouroloop.Future)
    assert issubclass(ouroloop.Task, (asyncio.Task, ouroloop.Future))
    assert ouroloop.Task[int].__origin__ is ouroloop.Task
    assert asyncio.isfuture(task)
    assert asyncio.ensure_future(task) is task
    loop.run_until_complete(task)


def test_asyncios_methods_work_on_it(loop):
    task = loop.create_task(wait(loop.create_future()), name="named")
    unnamed = loop.create_task(nothing())
    assert asyncio.Task.get_name(task) == "named"
    assert re.fullmatch(r"Task-\d+", asyncio.Task.get_name(unnamed))
    assert asyncio.Task.get_name(unnamed) == unnamed.get_name()
    run_callbacks(loop)
    assert asyncio.Task.cancel(task)
    assert not asyncio.Future.done(task)
    seen = []
    asyncio.Future.add_done_callback(task, seen.append)
    run_callbacks(loop)
    run_callbacks(loop)
    assert asyncio.Task.cancelled(task)
    assert seen == [task]


def test_has_the_methods_of_asyncios():
    for name in dir(asyncio.Task):
        assert hasattr(ouroloop.Task, name), name
    for name in ("cancel", "result", "done", "cancelled", "get_stack", "print_stack"):
        ours, stock = getattr(ouroloop.Task, name), getattr(asyncio.Task, name)
        assert inspect.signature(ours) == inspect.signature(stock)
    assert inspect.signature(ouroloop.Task) == inspect.signature(asyncio.Task)


def test_set_result_of_future_on_a_task(loop):
    """What asyncio lets pass: the method of the base class."""
    task = loop.create_task(wait(loop.create_future()))
    run_callbacks(loop)
    ouroloop.Future.set_result(task, 5)
    assert loop.run_until_complete(task) == 5
    assert asyncio.all_tasks(loop) == set()


def test_set_result_of_future_on_a_task_is_reported(loop, reports):
    task = loop.create_task(wait(loop.create_future()))
    run_callbacks(loop)
    future = task._fut_waiter
    asyncio.Future.set_result(task, 5)
    future.set_result(None)
    run_callbacks(loop)
    (report,) = reports.take()
    assert isinstance(report["exception"], asyncio.InvalidStateError)
    assert "step(): already done" in str(report["exception"])
    assert report["message"].startswith("Exception in callback")


def test_numbers_of_unnamed_tasks(loop):
    tasks = [loop.create_task(nothing()) for _ in range(120)]
    numbers = [int(re.fullmatch(r"Task-(\d+)", task.get_name())[1]) for task in tasks]
    assert numbers == list(range(numbers[0], numbers[0] + 120))
    loop.run_until_complete(asyncio.wait(tasks))


def test_listed_only_when_it_will_run():
    """A task whose first step is lost would be awaited for ever at the end of asyncio.run()."""

    class Refuses(ouroloop.Loop):
        def call_soon(self, *args, **kwargs):
            raise RuntimeError("refused")

    loop = Refuses()
    coro = nothing()
    for make in (loop.create_task, functools.partial(ouroloop.Task, loop=loop)):
        with pytest.raises(RuntimeError, match="refused"):
            make(coro)
    coro.close()
    gc.collect()
    assert asyncio.all_tasks(loop) == set()
    loop.close()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="context= came with 3.11")
def test_context(loop):
    async def change(value):
        before = VARIABLE.get()
        VARIABLE.set(value)
        await asyncio.sleep(0)
        return before, VARIABLE.get()

    context = contextvars.copy_context()
    context.run(VARIABLE.set, "of the context")
    task = loop.create_task(change("changed"), context=context)
    assert loop.run_until_complete(task) == ("of the context", "changed")
    assert context[VARIABLE] == "changed"
    if sys.version_info >= (3, 12):
        assert task.get_context() is context
    assert loop.run_until_complete(loop.create_task(change("x"))) == ("unset", "x")
    assert VARIABLE.get() == "unset"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="context= came with 3.11")
def test_context_that_is_none_of_contextvars(loop):
    class Odd:
        """What Handle needs of a context."""

        used = 0

        def run(self, callback, *args):
            Odd.used += 1
            return callback(*args)

    def make(Task):
        coro = nothing()
        try:
            return Task(coro, loop=loop, context=Odd())
        except TypeError as error:
            coro.close()
            return str(error)

    stock, ours = make(asyncio.Task), make(ouroloop.Task)
    if sys.version_info >= (3, 15):
        assert ours == stock
    else:
        loop.run_until_complete(asyncio.wait([stock, ours]))
        assert Odd.used >= 2


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
class TestEager:
    def run(self, loop, main):
        return loop.run_until_complete(main())

    def test_runs_at_once(self, loop):
        seen = []

        async def body():
            seen.append((asyncio.current_task().get_name(), len(asyncio.all_tasks())))
            await asyncio.sleep(0)
            seen.append(asyncio.current_task().get_name())
            return 5

        async def main():
            me = asyncio.current_task()
            task = ouroloop.Task(body(), loop=loop, name="eager", eager_start=True)
            assert seen == [("eager", 2)]
            assert asyncio.current_task() is me
            assert asyncio.all_tasks() == {me, task}
            return await task

        assert self.run(loop, main) == 5
        assert seen == [("eager", 2), "eager"]

    def test_that_ends_at_once(self, loop):
        async def main():
            task = ouroloop.Task(give(5), loop=loop, eager_start=True)
            assert task.done()
            if sys.version_info >= (3, 12, 2):
                # CPython crashed there before.
                assert task.get_coro() is None
            assert asyncio.all_tasks() == {asyncio.current_task()}
            return await task

        assert self.run(loop, main) == 5

    def test_that_fails_at_once(self, loop):
        async def main():
            task = ouroloop.Task(fail(ValueError("at once")), loop=loop, eager_start=True)
            assert asyncio.current_task() is not task
            with pytest.raises(ValueError, match="at once"):
                await task

        self.run(loop, main)

    def test_factory(self, loop):
        loop.set_task_factory(asyncio.create_eager_task_factory(ouroloop.Task))

        async def main():
            return [type(asyncio.current_task()), await asyncio.gather(give(1), give(2))]

        assert self.run(loop, main) == [ouroloop.Task, [1, 2]]

    def test_inside_of_an_eager_task(self, loop):
        async def main():
            seen = []

            async def body(depth):
                me = asyncio.current_task()
                if depth:
                    ouroloop.Task(body(depth - 1), loop=loop, eager_start=True)
                assert asyncio.current_task() is me
                seen.append(depth)

            await ouroloop.Task(body(5), loop=loop, eager_start=True)
            return seen

        assert self.run(loop, main) == [0, 1, 2, 3, 4, 5]

    def test_in_a_callback(self, loop):
        seen = []

        def callback():
            seen.append(ouroloop.Task(give(5), loop=loop, eager_start=True).result())
            seen.append(asyncio.current_task())
            loop.stop()

        loop.call_soon(callback)
        loop.run_forever()
        assert seen == [5, None]

    def test_waits_while_the_loop_does_not_run(self, loop):
        task = ouroloop.Task(give(5), loop=loop, eager_start=True)
        assert not task.done()
        assert loop.run_until_complete(task) == 5

    def test_exit_leaves(self, loop):
        async def main():
            ouroloop.Task(fail(SystemExit(3)), loop=loop, eager_start=True)

        with pytest.raises(SystemExit):
            self.run(loop, main)
        gc.collect()

    def test_in_a_context_that_is_entered(self, loop):
        """The context of who asks for it cannot be entered twice; all is put back."""

        async def main():
            me = asyncio.current_task()
            coro = nothing()
            with pytest.raises(RuntimeError, match="cannot enter context"):
                ouroloop.Task(coro, loop=loop, context=me.get_context(), eager_start=True)
            assert asyncio.current_task() is me
            coro.close()
            gc.collect()
            await asyncio.sleep(0)

        self.run(loop, main)

    @pytest.fixture
    def reports(self):
        # What becomes of the broken tasks above is asyncio's business.
        class Ignored(list):
            def append(self, report):
                pass

            def take(self):
                return []

        return Ignored()


def test_subclass(loop, reports):
    class Mine(ouroloop.Task):
        made = 0

        def __init__(self, coro, **kwargs):
            super().__init__(coro, **kwargs)
            type(self).made += 1
            self.extra = []

        def __call__(self, *args):
            raise RuntimeError("not the way to wake a task")

        def cancel(self, msg=None):
            self.extra.append(msg)
            return super().cancel(msg)

    def factory(loop, coro, **kwargs):
        return Mine(coro, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    future = loop.create_future()

    async def main():
        task = asyncio.create_task(wait(future))
        assert type(task) is Mine
        await asyncio.sleep(0)
        assert future._callbacks[0][0].__self__ is task
        future.set_result(5)
        assert await task == 5
        task = asyncio.create_task(asyncio.sleep(10))
        await asyncio.sleep(0)
        task.cancel("mine")
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.extra, await asyncio.gather(give(1), give(2))

    assert loop.run_until_complete(main()) == (["mine"], [1, 2])
    assert Mine.made == 5


def test_subclass_is_collected(loop):
    def use():
        class Mine(ouroloop.Task):
            pass

        task = Mine(give(5), loop=loop)
        task.cycle = task
        assert loop.run_until_complete(task) == 5
        return weakref.ref(Mine)

    reference = use()
    gc.collect()
    assert reference() is None


def test_subclass_that_is_destroyed(loop, reports):
    class Mine(ouroloop.Task):
        deleted = 0

        def __del__(self):
            type(self).deleted += 1
            super().__del__() if hasattr(super(), "__del__") else None

    task = Mine(wait(loop.create_future()), loop=loop)
    run_callbacks(loop)
    del task
    gc.collect()
    assert Mine.deleted == 1
    assert len(reports.take()) == 1
    gc.collect()
    assert Mine.deleted == 1
    assert asyncio.all_tasks(loop) == set()


def test_destroyed_handler_may_resurrect(loop):
    kept = []
    loop.set_exception_handler(lambda loop, context: kept.append(context["task"]))
    task = loop.create_task(wait(loop.create_future()), name="kept")
    run_callbacks(loop)
    del task
    gc.collect()
    (task,) = kept
    assert (task.get_name(), task.done()) == ("kept", False)
    reference = weakref.ref(task)
    del task
    kept.clear()
    gc.collect()
    assert (reference(), kept) == (None, [])
    assert asyncio.all_tasks(loop) == set()


def test_reused_object_is_new(loop):
    """Dead tasks are used again: nothing of the old one may show."""
    task = loop.create_task(fail(ValueError()), name="old")
    task.attribute = "old"
    run_callbacks(loop)
    task.exception()
    address = id(task)
    dead = []
    weakref.finalize(task, dead.append, True)
    del task
    assert dead == [True]
    again = loop.create_task(nothing())
    assert id(again) == address
    assert re.fullmatch(r"Task-\d+", again.get_name())
    assert not hasattr(again, "attribute")
    assert weakref.getweakrefcount(again) == 0
    assert (again._callbacks, again._exception, again._fut_waiter) == (None, None, None)
    assert again._log_destroy_pending
    if sys.version_info >= (3, 11):
        assert again.cancelling() == 0
    assert loop.run_until_complete(again) is None


def test_more_tasks_than_are_kept(loop):
    async def main():
        for _ in range(3):
            tasks = [asyncio.create_task(give(n)) for n in range(1000)]
            assert [await task for task in tasks] == list(range(1000))

    loop.run_until_complete(main())


def test_task_is_no_function(loop):
    """It can be called, for asyncio's own futures; not like that."""
    task = loop.create_task(nothing())
    with pytest.raises(TypeError):
        task()
    with pytest.raises(TypeError):
        task(future=1)
    loop.run_until_complete(task)


def test_debug_mode_keeps_where_it_was_made(loop):
    loop.set_debug(True)
    task = loop.create_task(nothing())
    assert task._source_traceback[-1].name == "test_debug_mode_keeps_where_it_was_made"
    assert "created at" in repr(task)
    loop.run_until_complete(task)


def test_a_task_type_put_in_the_place_of_asyncios(loop, monkeypatch):
    """asyncio's loops look tasks.Task up at each call, and nest_asyncio replaces it."""
    stock = asyncio.tasks.Task
    for Type in (type("Own", (asyncio.tasks._PyTask,), {}), type("OwnC", (stock,), {})):
        monkeypatch.setattr(asyncio.tasks, "Task", Type)

        async def main(Type=Type):
            made = [loop.create_task(give(1)), loop.create_task(coro=give(2), name="named")]
            assert [type(task) for task in made] == [Type, Type]
            assert made[1].get_name() == "named"
            return await asyncio.gather(*made)

        task = loop.create_task(main())
        assert type(task) is Type
        assert loop.run_until_complete(task) == [1, 2]
    for Type in (ouroloop.Task, stock):
        monkeypatch.setattr(asyncio.tasks, "Task", Type)
        task = loop.create_task(nothing())
        assert type(task) is ouroloop.Task
        loop.run_until_complete(task)
