"""Callbacks, timers, tasks, errors and debug mode."""

import asyncio
import contextvars
import gc
import logging
import threading
import time
import weakref

from . import at_least, connection, feature, raised, refused

NAME = contextvars.ContextVar("NAME", default="none")


def run_for(loop, seconds=0.02):
    loop.call_later(seconds, loop.stop)
    loop.run_forever()


def named(name):
    context = contextvars.copy_context()
    context.run(NAME.set, name)
    return context


@feature("call_soon / threadsafe + context=")
def callbacks_and_their_contexts(loop):
    seen = []

    def callback(*arguments):
        seen.append((NAME.get(), arguments))

    NAME.set("of the caller")
    loop.call_soon(callback, 1, 2)
    loop.call_soon(callback, context=named("given"))
    thread = threading.Thread(
        target=lambda: (
            loop.call_soon_threadsafe(callback, "thread"),
            loop.call_soon_threadsafe(callback, context=named("given to the thread")),
            loop.call_soon_threadsafe(loop.stop),
        )
    )
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert seen[0] == ("of the caller", (1, 2))
    assert seen[1] == ("given", ())
    return seen


@feature("call_soon / threadsafe + context=")
def cancelled_callbacks_do_not_run(loop):
    ran = []
    handles = [loop.call_soon(ran.append, n) for n in range(4)]
    handles += [loop.call_later(0, ran.append, n) for n in range(4, 6)]
    loop.call_soon(handles[3].cancel)
    loop.call_soon(lambda: later.cancel())
    later = loop.call_soon(ran.append, 6)
    for n in (0, 2, 5):
        handles[n].cancel()
    run_for(loop)
    assert sorted(ran) == [1, 3, 4]


@feature("call_soon / threadsafe + context=", since=(3, 14))
def cancel_waits_for_a_callback_of_another_thread(loop):
    started, finished, seen = threading.Event(), threading.Event(), []

    def slow():
        started.set()
        time.sleep(0.1)
        finished.set()

    def other_thread():
        handle = loop.call_soon_threadsafe(slow)
        started.wait(10)
        handle.cancel()
        seen.append((finished.is_set(), isinstance(handle, asyncio.events._ThreadSafeHandle)))
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=other_thread)
    thread.start()
    loop.run_forever()
    thread.join()
    assert seen[0][0] is True
    return seen


@feature("Handle is asyncio.Handle, get_context()")
def handles(loop):
    context = named("given")
    made = [
        loop.call_soon(print, context=context),
        loop.call_soon_threadsafe(print, context=context),
        loop.call_later(9, print, context=context),
        loop.call_at(loop.time() + 9, print, context=context),
    ]
    for handle in made:
        assert isinstance(handle, asyncio.Handle)
        if at_least(3, 12):
            assert handle.get_context() is context
        assert not handle.cancelled()
        handle.cancel()
        assert handle.cancelled()
    return [isinstance(handle, asyncio.TimerHandle) for handle in made]


@feature("TimerHandle <, isinstance")
def timers_compare(loop):
    early, late = loop.call_later(10, print), loop.call_later(20, print)
    assert isinstance(early, asyncio.TimerHandle)
    assert early < late
    assert late >= early
    assert early == early
    assert early != late
    assert sorted([late, early]) == [early, late]
    assert early._when == early.when()
    assert len({hash(early), hash(late), hash(early)}) == 2
    for handle in (early, late):
        handle.cancel()


@feature("call_later(0)/(-1) returns TimerHandle")
def calls_without_delay(loop):
    ran = []
    for delay in (0, -1, -0.5, 0.0):
        handle = loop.call_later(delay, ran.append, delay)
        assert isinstance(handle, asyncio.TimerHandle)
        assert handle.when() <= loop.time()
    run_for(loop)
    assert len(ran) == 4
    return ran


@connection("timers never early")
async def sleeps(loop):
    early = []
    for n in range(60):
        delay = 0.0004 + n * 0.00013
        started = time.monotonic()
        await asyncio.sleep(delay)
        # asyncio rounds to its clock's resolution.
        if time.monotonic() - started < delay - 2e-6:
            early.append((delay, time.monotonic() - started))
    assert early == []


@feature("time() == time.monotonic()")
def the_clock(loop):
    before = time.monotonic()
    now = loop.time()
    assert before <= now <= time.monotonic()


@feature("use after close -> RuntimeError")
def closed_loops(loop):
    loop.close()
    loop.close()
    assert loop.is_closed()

    async def nothing():
        return None

    uses = (
        lambda: loop.call_soon(print),
        lambda: loop.call_later(1, print),
        lambda: loop.call_at(1, print),
        lambda: loop.call_soon_threadsafe(print),
        lambda: loop.run_forever(),
        lambda: loop.run_in_executor(None, print),
    )
    seen = [refused(use) for use in uses]
    coroutine = nothing()
    seen.append(refused(loop.run_until_complete, coroutine))
    seen.append(refused(loop.create_task, coroutine))
    coroutine.close()
    assert all(text.startswith("RuntimeError: Event loop is closed") for text in seen)
    return seen


@feature("loop already running / another loop errors")
def nested_runs(loop):
    other = asyncio.SelectorEventLoop()
    inner = other.create_future()

    async def main():
        seen = [refused(each.run_until_complete, inner) for each in (loop, other)]
        seen.append(refused(loop.close))
        seen.append(await raised(asyncio.wait_for(asyncio.shield(inner), 1)))
        return seen

    try:
        seen = loop.run_until_complete(main())
    finally:
        other.close()
    assert len(seen) == 4
    return seen


@feature("create_task(name,context,eager_start)")
def task_arguments(loop):
    async def child():
        return NAME.get()

    async def main():
        seen = [asyncio.current_task().get_name() != "named"]
        task = loop.create_task(child(), name="named")
        seen += [task.get_name(), await task]
        task = loop.create_task(child(), name=3)
        seen += [task.get_name(), await task]
        if at_least(3, 11):
            task = loop.create_task(child(), context=named("given"))
            seen += [await task]
        coroutine = child()
        try:
            task = loop.create_task(coroutine, eager_start=True)
        except TypeError as error:
            seen.append("eager_start" in str(error))
            coroutine.close()
        else:
            seen += [task.done(), await task]
        return seen

    return loop.run_until_complete(main())


@connection("asyncio.create_task(eager_start=True)", since=(3, 14))
async def eager_tasks(loop):
    order = []

    async def child(n):
        order.append(n)
        if n % 2:
            await asyncio.sleep(0)
            order.append(-n)
        return n

    tasks = [asyncio.create_task(child(n), eager_start=True, name=f"{n}") for n in range(4)]
    order.append("after")
    assert [task.done() for task in tasks] == [True, False, True, False]
    lazy = asyncio.create_task(child(4), eager_start=False)
    async with asyncio.TaskGroup() as group:
        group.create_task(child(6), eager_start=True)
        order.append("in the group")
    return order, await asyncio.gather(*tasks, lazy), [task.get_name() for task in tasks]


@feature("eager_task_factory", since=(3, 12))
def eager_factory(loop):
    order = []

    async def child(n):
        order.append(n)
        if n % 2:
            await asyncio.sleep(0)
        return asyncio.current_task().get_name()

    async def main():
        tasks = [asyncio.create_task(child(n), name=f"eager {n}") for n in range(3)]
        order.append("main")
        assert [task.done() for task in tasks] == [True, False, True]
        async with asyncio.TaskGroup() as group:
            tasks.append(group.create_task(child(3), name="of the group"))
        return [await task for task in tasks]

    loop.set_task_factory(asyncio.eager_task_factory)
    names = loop.run_until_complete(main())
    assert order == [0, 1, 2, "main", 3]
    return names


@connection("eager_task_factory", since=(3, 12))
async def stock_tasks_started_eagerly(loop):
    """As aiohttp makes them, whatever the loop's own Task is."""

    async def child(n):
        await asyncio.sleep(0)
        return n

    tasks = [asyncio.Task(child(n), loop=loop, eager_start=True) for n in range(3)]
    assert not any(task.done() for task in tasks)
    return await asyncio.gather(*tasks)


@feature("custom task factory kwargs")
def task_factories(loop):
    seen = []

    def factory(loop, coro, **options):
        seen.append(sorted(options))
        return asyncio.Task(coro, loop=loop, **options)

    async def child():
        await asyncio.sleep(0)
        return asyncio.current_task().get_name()

    async def main():
        seen.append(await loop.create_task(child(), name="named"))
        seen.append((await asyncio.create_task(child())).startswith("Task-"))
        if at_least(3, 11):
            seen.append(await loop.create_task(child(), name="a", context=named("given")))

    assert loop.get_task_factory() is None
    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    loop.run_until_complete(main())
    seen.append(refused(loop.set_task_factory, 3))
    loop.set_task_factory(None)
    seen.append(loop.run_until_complete(loop.create_task(child(), name="again")))
    return seen


@feature("set/call_exception_handler")
def exception_handlers(loop):
    seen = []

    def fail():
        raise ZeroDivisionError("of a callback")

    def handler(the_loop, context):
        assert the_loop is loop
        seen.append((context["message"][:22], str(context.get("exception")), sorted(context)))

    assert loop.get_exception_handler() is not None
    before = loop.get_exception_handler()
    loop.set_exception_handler(handler)
    assert loop.get_exception_handler() is handler
    loop.call_soon(fail)
    loop.call_later(0.001, fail)
    run_for(loop)
    loop.call_exception_handler({"message": "by hand"})
    future = loop.create_future()
    future.set_exception(KeyError("never retrieved"))
    del future
    gc.collect()
    seen.append(refused(loop.set_exception_handler, 3))
    loop.set_exception_handler(before)
    assert len(seen) == 5
    return seen


@feature("set/call_exception_handler")
def default_exception_handler(loop):
    records = []
    catcher = logging.Handler()
    catcher.emit = lambda record: records.append(record)
    logger = logging.getLogger("asyncio")
    logger.addHandler(catcher)
    before = loop.get_exception_handler()
    try:
        loop.set_exception_handler(None)
        loop.call_soon(lambda: 1 / 0)
        run_for(loop)
    finally:
        logger.removeHandler(catcher)
        loop.set_exception_handler(before)
    (record,) = records
    assert record.levelname == "ERROR"
    assert record.exc_info[0] is ZeroDivisionError
    return record.getMessage().splitlines()[0][:22]


@feature("SystemExit in callback propagates")
def exits_leave_the_loop(loop):
    def leave(exception):
        raise exception(3)

    seen = []
    for exception in (SystemExit, KeyboardInterrupt):
        loop.call_soon(leave, exception)
        loop.call_soon(seen.append, "still there")
        try:
            loop.run_forever()
        except BaseException as error:
            seen.append(type(error).__name__)
        assert not loop.is_running()
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert seen == ["SystemExit", "still there", "KeyboardInterrupt", "still there"]


@feature("SystemExit in callback propagates")
def exits_of_tasks_leave_the_loop(loop):
    async def leave():
        raise SystemExit(5)

    async def main():
        await loop.create_task(leave(), name="leaving")

    task = loop.create_task(main())
    codes = []
    # First the inner task leaves, then the one that awaits it.
    while not task.done():
        try:
            loop.run_until_complete(task)
        except SystemExit as error:
            codes.append(error.code)
    assert codes == [5, 5]
    assert isinstance(task.exception(), SystemExit)


class Log(logging.Handler):
    """What asyncio logs while a block runs."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)

    def __enter__(self):
        logging.getLogger("asyncio").addHandler(self)
        return self.records

    def __exit__(self, *_):
        logging.getLogger("asyncio").removeHandler(self)


@feature("set_debug + slow_callback_duration log")
def slow_callbacks(loop):
    assert loop.slow_callback_duration == 0.1
    loop.set_debug(True)
    assert loop.get_debug()
    loop.slow_callback_duration = 0.1

    async def slow_step():
        time.sleep(0.15)

    with Log() as records:
        loop.call_soon(time.sleep, 0.15)
        loop.run_until_complete(loop.create_task(slow_step(), name="slow"))
    messages = [r.getMessage() for r in records if "took" in r.getMessage()]
    assert len(messages) == 2
    assert "sleep" in messages[0]
    assert "slow_step" in messages[1]
    return [r.levelname for r in records if "took" in r.getMessage()]


@feature("debug: wrong-thread call_soon / coro fn / non-callable")
def debug_checks(loop):
    loop.set_debug(True)

    async def function():
        pass

    seen = []
    for value in (function, 3, None):
        for call in (
            lambda value: loop.call_soon(value),
            lambda value: loop.call_later(0, value),
            lambda value: loop.call_soon_threadsafe(value),
            lambda value: loop.run_in_executor(None, value),
        ):
            seen.append(refused(call, value))
    assert all(text.startswith("TypeError: ") for text in seen)

    async def main():
        for call in (
            lambda: loop.call_soon(print),
            lambda: loop.call_later(0, print),
            lambda: loop.call_at(0, print),
        ):
            seen.append(await loop.run_in_executor(None, refused, call))
            assert seen[-1].startswith("RuntimeError: Non-thread-safe operation")

    loop.run_until_complete(main())
    return [text.partition(" at 0x")[0] for text in seen]


@feature("debug: source_traceback on Handle / Future")
def source_tracebacks(loop):
    async def child():
        pass

    def tracebacks():
        task = loop.create_task(child())
        made = [loop.call_soon(print), loop.call_later(1, print), loop.create_future(), task]
        loop.run_until_complete(task)
        for each in made[:2]:
            each.cancel()
        return [[frame.name for frame in each._source_traceback] for each in made]

    handle = loop.call_soon(print)
    assert handle._source_traceback is None
    handle.cancel()
    loop.set_debug(True)
    # Functions of asyncio's own may stand behind it.
    assert all("tracebacks" in names for names in tracebacks())


@feature("asyncgen hooks, shutdown_asyncgens")
def asynchronous_generators(loop):
    closed = []

    async def generator(name):
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(name)

    async def main():
        abandoned, kept = generator("abandoned"), generator("kept")
        assert await abandoned.__anext__() == await kept.__anext__() == 1
        del abandoned
        gc.collect()
        await asyncio.sleep(0.01)
        assert closed == ["abandoned"]
        return kept

    kept = loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert closed == ["abandoned", "kept"]
    assert kept.ag_frame is None


@connection("default executor thread name")
async def executor_threads(loop):
    name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
    assert name == "asyncio_0"


@feature("set_default_executor(3) TypeError; shutdown(timeout=)")
def executors(loop):
    from concurrent.futures import ThreadPoolExecutor

    seen = [refused(loop.set_default_executor, 3)]
    loop.set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="mine"))

    async def main():
        seen.append(await loop.run_in_executor(None, lambda: threading.current_thread().name))
        options = {"timeout": 5} if at_least(3, 12) else {}
        await loop.shutdown_default_executor(**options)
        seen.append(refused(loop.run_in_executor, None, print))

    loop.run_until_complete(main())
    assert seen[1] == "mine_0"
    return seen


@feature("all_tasks, TaskGroup, timeout, gather, to_thread, run_coroutine_threadsafe")
def high_level(loop):
    async def number(n, delay=0.0):
        await asyncio.sleep(delay)
        if n < 0:
            raise ValueError(n)
        return n

    async def main():
        seen = []
        task = asyncio.create_task(number(1))
        assert asyncio.all_tasks() == {task, asyncio.current_task()}
        seen.append(await task)
        seen.append(await asyncio.gather(number(1), number(-2), return_exceptions=True))
        seen.append(await raised(asyncio.gather(number(1), number(-2))))
        seen.append(await raised(asyncio.wait_for(number(1, 10), 0.01)))
        if at_least(3, 11):
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(number(-1))
                    group.create_task(number(1, 10))
            except BaseException as error:
                seen.append((str(error), [str(each) for each in error.exceptions]))
            try:
                async with asyncio.timeout(0.01):
                    await number(1, 10)
            except TimeoutError:
                seen.append("timeout")
        context = named("inherited")
        seen.append(await context.run(asyncio.create_task, asyncio.to_thread(NAME.get)))

        def from_thread():
            return asyncio.run_coroutine_threadsafe(number(7), loop).result(10)

        seen.append(await asyncio.to_thread(from_thread))
        done, pending = await asyncio.wait(
            [asyncio.ensure_future(number(n, n)) for n in (0, 10)],
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in pending:
            task.cancel()
        await asyncio.wait(pending)
        seen.append((len(done), [task.cancelled() for task in pending]))
        return seen

    seen = loop.run_until_complete(main())
    assert asyncio.all_tasks(loop) == set()
    return seen


@feature("subclassable, __dict__, weakref loop")
def subclasses(loop):
    class Mine(type(loop)):
        def __init__(self):
            super().__init__()
            self.calls = []

        def call_soon(self, callback, *arguments, context=None):
            self.calls.append(getattr(callback, "__name__", None))
            return super().call_soon(callback, *arguments, context=context)

    mine = Mine()
    mine.extra = 3
    assert vars(mine)["extra"] == 3
    assert weakref.ref(mine)() is mine
    future = mine.create_future()
    future.add_done_callback(print_nothing)
    future.set_result(None)
    mine.run_until_complete(future)
    calls = mine.calls
    mine.close()
    assert "print_nothing" in calls
    return calls


def print_nothing(future):
    """A callback."""


@feature("nest_asyncio-type privates (_ready, _scheduled, _selector, _run_once)")
def privates(loop):
    """What tools that turn a loop by hand use; what is scheduled is ouroloop's own to keep."""
    ran = []
    loop.call_soon(ran.append, 1)
    loop.call_later(0.001, ran.append, 2)
    while ran != [1, 2]:
        loop._run_once()
    assert len(loop._ready) == 0
    assert loop._selector.get_map() is not None
    return [type(loop._ready).__name__, type(loop._scheduled).__name__, loop._stopping]


@feature("Task(context=) and Future.__init__ twice are checked", since=(3, 15))
def wrong_contexts(loop):
    async def nothing():
        return None

    coroutine = nothing()
    text = refused(loop.create_task, coroutine, context=3)
    coroutine.close()
    assert text.startswith("TypeError: ")
    return text


@feature("run_until_complete and Runner.run take any awaitable", since=(3, 14))
def awaitables(loop):
    class Awaitable:
        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return 5

    with asyncio.Runner(loop_factory=lambda: type(loop)()) as runner:
        assert runner.run(Awaitable()) == 5
    return refused(loop.run_until_complete, 5)
