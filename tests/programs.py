"""Random asyncio programs as data, and a machine that runs one and writes down what happens.

A program is a list of tasks, a task a list of statements, a statement a tuple of a name and its
arguments. Nothing in a program depends on the wall clock, so two loops that follow asyncio's order
of events write down the same trace, event by event.
"""

import asyncio
import contextvars
import gc
import random
import sys

FUTURES = 4
ROUNDS = 40
PATIENCE = 100

SIMPLE = (
    "sleep0",
    "await_future",
    "await_task",
    "set_result",
    "set_exception",
    "cancel_future",
    "cancel_task",
    "cancel_self",
    "call_soon",
    "call_soon_threadsafe",
    "call_later_0",
    "call_at_past",
    "cancel_handle",
    "add_done_callback",
    "remove_done_callback",
    "set_variable",
    "in_context",
    "event_set",
    "event_wait",
    "event_clear",
    "put",
    "get",
    "raise_error",
    "custom_awaitable",
    "bare_yields",
    "timer_0_future",
    "async_generator",
    "state",
)
NESTED = (
    "spawn",
    "await_child",
    "gather",
    "gather_exceptions",
    "wait_all",
    "wait_first",
    "wait_exception",
    "wait_for_none",
    "wait_for_0",
    "shield",
    "as_completed",
    "lock",
    "semaphore",
    "try",
    "finally_sleep",
    "suppress",
)
if sys.version_info >= (3, 11):
    NESTED += ("timeout_none", "timeout_0", "task_group")


def generate(seed):
    """The program of a seed: tasks, and whether tasks start eagerly (3.12 and later)."""
    chance = random.Random(seed)
    tasks = [block(chance, depth=2) for _ in range(chance.randint(1, 4))]
    eager = sys.version_info >= (3, 12) and chance.random() < 0.25
    return {"eager": eager, "debug": chance.random() < 0.1, "tasks": tasks}


def block(chance, depth):
    return [statement(chance, depth) for _ in range(chance.randint(1, 6))]


def statement(chance, depth):
    if depth and chance.random() < 0.35:
        name = chance.choice(NESTED)
        # A group cancels its children in the order of a set, which is no order.
        single = name in BODY_IN_PLACE or name == "task_group"
        count = 1 if single else chance.randint(1, 3)
        return (name, *(block(chance, depth - 1) for _ in range(count)))
    return (chance.choice(SIMPLE), chance.randrange(12))


# Statements with one body that the same task runs.
BODY_IN_PLACE = (
    "lock",
    "semaphore",
    "try",
    "finally_sleep",
    "suppress",
    "timeout_none",
    "timeout_0",
)


variable = contextvars.ContextVar("variable", default=0)


class Machine:
    """Runs one program on one loop."""

    def __init__(self, program, loop):
        self.program = program
        self.loop = loop
        self.trace = []
        self.tasks = []
        self.handles = []
        self.reports = []
        loop.set_exception_handler(self.on_report)
        loop.set_debug(program["debug"])
        loop.slow_callback_duration = 1e9
        if program["eager"]:
            loop.set_task_factory(asyncio.eager_task_factory)

    def run(self):
        try:
            self.loop.run_until_complete(self.main())
            self.loop.call_soon(self.note, "callback", "after main")
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        except RuntimeError as error:
            self.note("run", repr(error))
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()
        del self.tasks[:], self.handles[:]
        self.futures = None
        gc.collect()
        # When garbage is found is no part of asyncio's order, what is reported is.
        return [*self.trace, *sorted(self.reports)]

    def on_report(self, loop, context):
        exception = context.get("exception")
        self.reports.append(f"report {context['message'].partition(' at ')[0]} {exception!r}")

    def note(self, *what):
        self.trace.append((*what, variable.get()))

    async def main(self):
        self.futures = [self.loop.create_future() for _ in range(FUTURES)]
        self.event = asyncio.Event()
        self.queue = asyncio.Queue(2)
        self.lock = asyncio.Lock()
        self.semaphore = asyncio.Semaphore(2)
        for number, body in enumerate(self.program["tasks"]):
            self.spawn(f"t{number}", body)
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
        self.note("end of the free rounds", self.states())
        # What still waits is cancelled until it gives up.
        for _ in range(PATIENCE):
            pending = [task for task in self.tasks if not task.done()]
            if not pending:
                break
            for task in pending:
                task.cancel()
            for _ in range(4):
                await asyncio.sleep(0)
        self.note("end", self.states())
        assert not pending, "the program does not end"
        self.note("left", len(asyncio.all_tasks()))

    def states(self):
        return [self.outcome(x) for x in (*self.futures, *self.tasks)]

    @staticmethod
    def outcome(future):
        if not future.done():
            return "pending"
        if future.cancelled():
            return "cancelled"
        if future.exception() is not None:
            return repr(future.exception())
        return f"result {future.result()!r}"

    def spawn(self, name, body):
        task = self.loop.create_task(self.body(name, body))
        task.set_name(name)
        self.tasks.append(task)
        self.note("spawned", name)
        return task

    def children(self, name, bodies):
        return [self.spawn(f"{name}.{n}", body) for n, body in enumerate(bodies)]

    def target(self, number):
        return self.tasks[number % len(self.tasks)] if self.tasks else self.futures[0]

    def callback(self, name):
        def called(*args):
            self.note("callback", name, [self.outcome(arg) for arg in args])

        return called

    async def body(self, name, statements):
        self.note(name, "begins")
        try:
            for number, (what, *args) in enumerate(statements):
                result = await getattr(self, f"do_{what}")(f"{name}:{number}", *args)
                self.note(name, number, what, result)
            return name
        except BaseException as error:
            self.note(name, "ends with", type(error).__name__, self.words(error))
            raise
        finally:
            self.note(name, "ends")

    @staticmethod
    def words(error):
        # Texts with a repr of a task in them differ in addresses.
        return [str(arg).partition("<")[0] for arg in error.args]

    # --- statements

    async def do_sleep0(self, name, n):
        return await asyncio.sleep(0, n)

    async def do_await_future(self, name, n):
        return await self.futures[n % FUTURES]

    async def do_await_task(self, name, n):
        # Shielded: tasks that wait for each other in a circle could not be cancelled.
        target = self.target(n)
        return await (target if target.done() else asyncio.shield(target))

    async def do_set_result(self, name, n):
        future = self.futures[n % FUTURES]
        if future.done():
            self.futures[n % FUTURES] = self.loop.create_future()
        else:
            future.set_result(n)

    async def do_set_exception(self, name, n):
        future = self.futures[n % FUTURES]
        if not future.done():
            future.set_exception(KeyError(n))

    async def do_cancel_future(self, name, n):
        return self.futures[n % FUTURES].cancel(f"by {name}")

    async def do_cancel_task(self, name, n):
        return self.target(n).cancel(f"by {name}")

    async def do_cancel_self(self, name, n):
        task = asyncio.current_task()
        cancelled = task.cancel()
        if n % 2 and hasattr(task, "uncancel"):
            return cancelled, task.uncancel()
        return cancelled

    async def do_call_soon(self, name, n):
        self.handles.append(self.loop.call_soon(self.callback(name)))

    async def do_call_soon_threadsafe(self, name, n):
        self.handles.append(self.loop.call_soon_threadsafe(self.callback(name)))

    async def do_call_later_0(self, name, n):
        self.handles.append(self.loop.call_later(-n % 2, self.callback(name)))

    async def do_call_at_past(self, name, n):
        self.handles.append(self.loop.call_at(self.loop.time() - 1, self.callback(name)))

    async def do_cancel_handle(self, name, n):
        if self.handles:
            handle = self.handles[n % len(self.handles)]
            handle.cancel()
            return handle.cancelled()

    async def do_add_done_callback(self, name, n):
        context = contextvars.copy_context() if n % 2 else None
        if context is not None:
            context.run(variable.set, 100 + n)
        self.target(n).add_done_callback(self.callback(name), context=context)

    async def do_remove_done_callback(self, name, n):
        called, future = self.callback(name), self.futures[n % FUTURES]
        for _ in range(n % 3):
            future.add_done_callback(called)
        return future.remove_done_callback(called)

    async def do_set_variable(self, name, n):
        variable.set(n)

    async def do_in_context(self, name, n):
        context = contextvars.copy_context()
        context.run(variable.set, 200 + n)
        context.run(self.loop.call_soon, self.callback(name))
        self.loop.call_soon(self.callback(name), context=context)

    async def do_event_set(self, name, n):
        self.event.set()

    async def do_event_clear(self, name, n):
        self.event.clear()

    async def do_event_wait(self, name, n):
        return await self.event.wait()

    async def do_put(self, name, n):
        await self.queue.put(n)

    async def do_get(self, name, n):
        return await self.queue.get()

    async def do_raise_error(self, name, n):
        if n % 3 == 0:
            raise ValueError(n)

    async def do_custom_awaitable(self, name, n):
        return await Awaitable(self.futures[n % FUTURES], n)

    async def do_bare_yields(self, name, n):
        return await BareYields(n % 4)

    async def do_timer_0_future(self, name, n):
        future = self.loop.create_future()
        self.loop.call_later(0, future.set_result, n)
        return await asyncio.shield(future)

    async def do_async_generator(self, name, n):
        total = 0
        async for value in numbers(n % 4):
            total += value
        return total

    async def do_state(self, name, n):
        return self.states()

    async def do_spawn(self, name, *bodies):
        self.children(name, bodies)

    async def do_await_child(self, name, *bodies):
        return [await child for child in self.children(name, bodies)]

    async def do_gather(self, name, *bodies):
        return await asyncio.gather(*self.children(name, bodies))

    async def do_gather_exceptions(self, name, *bodies):
        results = await asyncio.gather(*self.children(name, bodies), return_exceptions=True)
        return [repr(result).partition("<")[0] for result in results]

    async def do_wait_all(self, name, *bodies):
        return await self.wait(name, bodies, asyncio.ALL_COMPLETED)

    async def do_wait_first(self, name, *bodies):
        return await self.wait(name, bodies, asyncio.FIRST_COMPLETED)

    async def do_wait_exception(self, name, *bodies):
        return await self.wait(name, bodies, asyncio.FIRST_EXCEPTION)

    async def wait(self, name, bodies, when):
        done, pending = await asyncio.wait(self.children(name, bodies), return_when=when)
        return sorted(t.get_name() for t in done), sorted(t.get_name() for t in pending)

    async def do_wait_for_none(self, name, *bodies):
        return await asyncio.wait_for(self.children(name, bodies)[0], None)

    async def do_wait_for_0(self, name, *bodies):
        return await asyncio.wait_for(self.children(name, bodies)[0], 0)

    async def do_shield(self, name, *bodies):
        return await asyncio.shield(self.children(name, bodies)[0])

    async def do_as_completed(self, name, *bodies):
        children, results = self.children(name, bodies), []
        if any(child.done() for child in children):
            # as_completed gives those in the order of a set, which is no order.
            await asyncio.wait(children)
            return [self.outcome(child) for child in children]
        for future in asyncio.as_completed(children):
            try:
                results.append(await future)
            except ValueError as error:
                results.append(repr(error))
        return results

    async def do_lock(self, name, body):
        async with self.lock:
            return await self.body(name, body)

    async def do_semaphore(self, name, body):
        async with self.semaphore:
            return await self.body(name, body)

    async def do_try(self, name, body):
        try:
            return await self.body(name, body)
        except (ValueError, KeyError, asyncio.TimeoutError) as error:
            return f"caught {error!r}"

    async def do_finally_sleep(self, name, body):
        try:
            return await self.body(name, body)
        finally:
            await asyncio.sleep(0)

    async def do_suppress(self, name, body):
        try:
            return await self.body(name, body)
        except asyncio.CancelledError as error:
            return f"suppressed {error.args}"

    async def do_timeout_none(self, name, body):
        async with asyncio.timeout(None):
            return await self.body(name, body)

    async def do_timeout_0(self, name, body):
        async with asyncio.timeout(0):
            return await self.body(name, body)

    async def do_task_group(self, name, *bodies):
        async with asyncio.TaskGroup() as group:
            for number, body in enumerate(bodies):
                task = group.create_task(
                    self.body(f"{name}.{number}", body), name=f"{name}.{number}"
                )
                self.tasks.append(task)
        return "group done"


class Awaitable:
    """Awaits a future from a hand-written generator."""

    def __init__(self, future, n):
        self.future, self.n = future, n

    def __await__(self):
        yield
        result = yield from self.future.__await__()
        return result, self.n


class BareYields:
    def __init__(self, n):
        self.n = n

    def __await__(self):
        for _ in range(self.n):
            yield
        return self.n


async def numbers(n):
    for number in range(n):
        await asyncio.sleep(0)
        yield number


def run(program, new_event_loop):
    """The trace of a program on a new loop."""
    context = contextvars.Context()
    return context.run(lambda: Machine(program, new_event_loop()).run())


def reduce(program, differs):
    """The program with every statement taken out that is not needed for `differs(program)`."""
    smaller = True
    while smaller:
        smaller = False
        for candidate in without_one(program["tasks"]):
            candidate = {**program, "tasks": candidate}
            if differs(candidate):
                program, smaller = candidate, True
                break
    return program


def without_one(tree):
    """Copies of a nested list of statements with one element left out."""
    for index, item in enumerate(tree):
        yield [*tree[:index], *tree[index + 1 :]]
        if isinstance(item, list):
            for part in without_one(item):
                yield [*tree[:index], part, *tree[index + 1 :]]
        elif isinstance(item, tuple) and isinstance(item[-1], list):
            for part in without_one(list(item[1:])):
                if part:
                    yield [*tree[:index], (item[0], *part), *tree[index + 1 :]]
