"""What the statements of programs.py do: do_<name>(where, number, *bodies) for each.

The class is a part of machine.Machine.
"""

import asyncio
import builtins
import concurrent.futures
import contextvars
import re
import sys

from programs import FUTURES

variable = contextvars.ContextVar("variable", default=0)
BASE_GROUP = getattr(builtins, "BaseExceptionGroup", ())


def words(value):
    """A text that is the same on every loop: no addresses, no numbers, no lines of source."""
    text = value if isinstance(value, str) else repr(value)
    text = re.sub(r"\b0x[0-9a-f]+", "0x", text)
    text = re.sub(r"\bTask-\d+", "Task-", text)
    text = re.sub(r"\bfd=\d+", "fd=", text)
    # asyncio's way to end a wait for a socket.
    text = re.sub(r"BaseSelectorEventLoop\._sock_\w+_done\(.*?\)\(\), ", "", text)
    text = text.replace("_SelectorSocketTransport", "Transport")
    text = text.replace("StreamTransport", "Transport")
    # Where a future was created: the loop's own line in asyncio, its caller's in ours.
    text = re.sub(r"\.\.\.[^ >]*>", "...>", text)
    return re.sub(r" at [^ >\]]*:\d+", "", text)


def error_words(error):
    """Type, arguments, and what it came from."""
    chain, seen = [], set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, BASE_GROUP):
            arguments = [error.args[0], [error_words(inner) for inner in error.exceptions]]
        else:
            arguments = [words(arg) for arg in error.args]
        chain.append((type(error).__name__, *arguments))
        error = error.__cause__ or error.__context__
    return chain


class Statements:
    # --- statements: core

    async def do_sleep0(self, name, n):
        return await asyncio.sleep(0, n)

    async def do_await_future(self, name, n):
        return await self.futures[n % FUTURES]

    async def do_await_task(self, name, n):
        # Shielded: tasks that wait for each other in a circle could not be cancelled.
        target = self.target(n)
        return await (target if target.done() else asyncio.shield(target))

    async def do_set_result(self, name, n):
        self.set_result(n)

    def set_result(self, n):
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

    async def do_set_variable(self, name, n):
        variable.set(n)

    async def do_raise_error(self, name, n):
        if n % 3 == 0:
            raise ValueError(n)

    async def do_state(self, name, n):
        names = sorted(words(task.get_name()) for task in asyncio.all_tasks())
        return self.states(), names, words(asyncio.current_task().get_name())

    async def do_spawn(self, name, n, *bodies):
        self.children(name, bodies)

    async def do_await_child(self, name, n, *bodies):
        return [await child for child in self.children(name, bodies)]

    async def do_try(self, name, n, body):
        try:
            return await self.body(name, body)
        except (ValueError, KeyError, asyncio.TimeoutError) as error:
            return f"caught {error!r}"

    async def do_suppress(self, name, n, body):
        try:
            return await self.body(name, body)
        except asyncio.CancelledError as error:
            return f"suppressed {error.args}"

    # --- callbacks

    async def do_call_soon(self, name, n):
        self.handles.append(self.loop.call_soon(self.callback(name)))

    async def do_call_soon_threadsafe(self, name, n):
        self.handles.append(self.loop.call_soon_threadsafe(self.callback(name)))

    async def do_call_soon_chain(self, name, n):
        def link(left):
            self.note("callback", name, left)
            variable.set(400 + left)
            if left:
                self.handles.append(self.loop.call_soon(link, left - 1))

        link(n % 3)

    async def do_call_soon_fails(self, name, n):
        self.handles.append(self.loop.call_soon(self.failing(name, LookupError(n))))

    async def do_cancel_handle(self, name, n):
        handle = self.handle(n)
        if handle is not None:
            handle.cancel()
            return handle.cancelled()

    async def do_cancel_handle_soon(self, name, n):
        handle = self.handle(n)
        if handle is not None:
            self.loop.call_soon(handle.cancel)

    async def do_handle_state(self, name, n):
        handle = self.handle(n)
        if handle is None:
            return None
        when = handle.when() - self.begin if hasattr(handle, "when") and self.virtual else None
        # Not its repr: a handle of ours drops its callback when that has run.
        return handle.cancelled(), when

    async def do_add_done_callback(self, name, n):
        context = contextvars.copy_context() if n % 2 else None
        if context is not None:
            context.run(variable.set, 100 + n)
        self.target(n).add_done_callback(self.callback(name), context=context)

    async def do_add_done_callback_fails(self, name, n):
        self.futures[n % FUTURES].add_done_callback(self.failing(name, LookupError(n)))

    async def do_remove_done_callback(self, name, n):
        called, future = self.callback(name), self.futures[n % FUTURES]
        for _ in range(n % 3):
            future.add_done_callback(called)
        return future.remove_done_callback(called)

    async def do_in_context(self, name, n):
        context = contextvars.copy_context()
        context.run(variable.set, 200 + n)
        context.run(self.loop.call_soon, self.callback(name))
        self.loop.call_soon(self.callback(name), context=context)

    async def do_task_in_context(self, name, n, body):
        context = contextvars.copy_context()
        context.run(variable.set, 300 + n)
        if sys.version_info >= (3, 11) and n % 2:
            self.spawn(f"{name}.0", body, context=context)
        else:
            context.run(self.spawn, f"{name}.0", body)
        return context[variable]

    # --- cancel

    async def do_cancel_self(self, name, n):
        task = asyncio.current_task()
        cancelled = task.cancel()
        if n % 2 and hasattr(task, "uncancel"):
            return cancelled, task.uncancel()
        return cancelled

    async def do_cancel_self_nothing(self, name, n):
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async def do_cancel_twice(self, name, n):
        return self.target(n).cancel("one"), self.target(n).cancel("two")

    async def do_cancel_object(self, name, n):
        return self.target(n).cancel((n, None))

    async def do_cancel_soon(self, name, n):
        self.handles.append(self.loop.call_soon(self.target(n).cancel, "soon"))

    async def do_cancel_when_done(self, name, n):
        task = self.target(n)
        self.futures[n % FUTURES].add_done_callback(lambda future: task.cancel("when done"))

    async def do_cancel_and_set(self, name, n):
        self.target(n).cancel()
        self.set_result(n)

    async def do_set_and_cancel(self, name, n):
        self.set_result(n)
        self.target(n).cancel()

    async def do_cancel_child(self, name, n, body):
        (child,) = self.children(name, [body])
        await asyncio.sleep(0)
        child.cancel(f"by {name}")
        return await child

    async def do_cancelled_waits(self, name, n, body):
        try:
            return await self.body(name, body)
        except asyncio.CancelledError:
            return await self.futures[n % FUTURES]

    async def do_finally_sleep(self, name, n, body):
        try:
            return await self.body(name, body)
        finally:
            await asyncio.sleep(0)

    async def do_cancelling(self, name, n):
        target = self.target(n)
        return hasattr(target, "cancelling") and target.cancelling(), target.cancelled()

    async def do_nested_suppress(self, name, n, body):
        try:
            return await self.body(name, body)
        except asyncio.CancelledError as error:
            asyncio.current_task().cancel(f"again after {error.args}")
            await asyncio.sleep(0)

    # --- timers

    async def do_sleep(self, name, n):
        return await asyncio.sleep(self.turns(n), n)

    async def do_call_later(self, name, n):
        self.handles.append(self.loop.call_later(self.turns(n), self.callback(name)))

    async def do_call_later_0(self, name, n):
        self.handles.append(self.loop.call_later(n % 2 - 1, self.callback(name)))

    async def do_call_at(self, name, n):
        when = self.begin + n % 4 * 3 if self.virtual else self.begin - 1 - n % 4
        self.handles.append(self.loop.call_at(when, self.callback(name)))

    async def do_call_at_past(self, name, n):
        self.handles.append(self.loop.call_at(self.begin - n % 3, self.callback(name)))

    async def do_cancel_timer(self, name, n):
        return await self.do_cancel_handle(name, n)

    async def do_timer_future(self, name, n):
        future = self.futures[n % FUTURES]
        self.handles.append(self.loop.call_later(self.turns(n), self.set_if_pending, future, n))

    @staticmethod
    def set_if_pending(future, result):
        if not future.done():
            future.set_result(result)

    async def do_timer_cancels(self, name, n):
        task = self.target(n)
        self.handles.append(self.loop.call_later(self.turns(n), task.cancel, "late"))

    async def do_many_timers(self, name, n):
        step = 1 if self.virtual else -1
        timers = [
            self.loop.call_at(self.begin + step * (k * 7 % 4), self.callback(f"{name} {k}"))
            for k in range(16)
        ]
        for timer in timers[n % 2 :: 2]:
            timer.cancel()

    async def do_sweep_timers(self, name, n):
        # More than 100: asyncio makes its heap anew then, without those that are cancelled.
        step = 1 if self.virtual else -1
        timers = [
            self.loop.call_at(self.begin + step * (k * 7 % 4), self.callback(f"{name} {k}"))
            for k in range(128)
        ]
        for k, timer in enumerate(timers):
            if k % (3 + n % 3):
                timer.cancel()

    async def do_time(self, name, n):
        return self.virtual and self.loop.time()

    # --- timeouts

    async def do_wait_for(self, name, n, body):
        return await asyncio.wait_for(self.children(name, [body])[0], self.turns(n))

    async def do_wait_for_none(self, name, n, body):
        return await asyncio.wait_for(self.children(name, [body])[0], None)

    async def do_wait_for_0(self, name, n, body):
        return await asyncio.wait_for(self.body(name, body), min(0, n % 3 - 1))

    async def do_wait_for_future(self, name, n):
        return await asyncio.wait_for(self.futures[n % FUTURES], self.turns(n))

    async def do_wait_timeout(self, name, n, *bodies):
        return await self.wait(name, bodies, asyncio.ALL_COMPLETED, self.turns(n))

    async def do_as_completed_timeout(self, name, n, *bodies):
        return await self.as_completed(name, bodies, self.turns(n))

    async def do_timeout(self, name, n, body):
        async with asyncio.timeout(self.turns(n)):
            return await self.body(name, body)

    async def do_timeout_none(self, name, n, body):
        async with asyncio.timeout(None):
            return await self.body(name, body)

    async def do_timeout_0(self, name, n, body):
        async with asyncio.timeout(min(0, n % 3 - 1)) as scope:
            try:
                return await self.body(name, body)
            finally:
                self.note(name, scope.expired(), words(scope) if self.virtual else None)

    async def do_timeout_at(self, name, n, body):
        async with asyncio.timeout_at(self.begin + self.turns(n)):
            return await self.body(name, body)

    async def do_reschedule(self, name, n, body):
        async with asyncio.timeout(None) as scope:
            scope.reschedule(self.loop.time() + self.turns(n))
            return await self.body(name, body)

    # --- combinators

    async def do_gather(self, name, n, *bodies):
        return await asyncio.gather(*self.children(name, bodies))

    async def do_gather_exceptions(self, name, n, *bodies):
        results = await asyncio.gather(*self.children(name, bodies), return_exceptions=True)
        return [words(result) for result in results]

    async def do_gather_futures(self, name, n):
        futures = [self.futures[0], self.futures[n % FUTURES], self.target(n)]
        if futures[2] is not asyncio.current_task():
            futures[2] = asyncio.shield(futures[2])
        else:
            del futures[2]
        return await asyncio.gather(*futures)

    async def do_gather_cancelled(self, name, n, *bodies):
        together = asyncio.gather(*self.children(name, bodies))
        self.loop.call_soon(together.cancel)
        return await together

    async def do_wait_all(self, name, n, *bodies):
        return await self.wait(name, bodies, asyncio.ALL_COMPLETED)

    async def do_wait_first(self, name, n, *bodies):
        return await self.wait(name, bodies, asyncio.FIRST_COMPLETED)

    async def do_wait_exception(self, name, n, *bodies):
        return await self.wait(name, bodies, asyncio.FIRST_EXCEPTION)

    async def wait(self, name, bodies, when, timeout=None):
        children = self.children(name, bodies)
        done, pending = await asyncio.wait(children, timeout=timeout, return_when=when)
        return sorted(t.get_name() for t in done), sorted(t.get_name() for t in pending)

    async def do_shield(self, name, n, body):
        return await asyncio.shield(self.children(name, [body])[0])

    async def do_shield_future(self, name, n):
        return await asyncio.shield(self.futures[n % FUTURES])

    async def do_as_completed(self, name, n, *bodies):
        return await self.as_completed(name, bodies)

    async def as_completed(self, name, bodies, timeout=None):
        children, results = self.children(name, bodies), []
        if any(child.done() for child in children):
            # as_completed gives those in the order of a set, which is no order.
            await asyncio.wait(children)
            return [self.outcome(child) for child in children]
        for future in asyncio.as_completed(children, timeout=timeout):
            try:
                results.append(await future)
            except ValueError as error:
                results.append(repr(error))
        return results

    async def do_as_completed_async(self, name, n, *bodies):
        children, results = self.children(name, bodies), []
        if any(child.done() for child in children):
            await asyncio.wait(children)
            return [self.outcome(child) for child in children]
        async for child in asyncio.as_completed(children):
            results.append((child.get_name(), self.outcome(child)))
        return results

    # --- locks

    async def do_lock(self, name, n, body):
        async with self.lock:
            return await self.body(name, body)

    async def do_semaphore(self, name, n, body):
        async with self.semaphore:
            return await self.body(name, body)

    async def do_bounded_semaphore(self, name, n, body):
        async with self.bounded_semaphore:
            return await self.body(name, body)

    async def do_release_semaphore(self, name, n):
        self.bounded_semaphore.release()

    async def do_lock_state(self, name, n):
        return self.lock.locked(), self.semaphore.locked(), words(self.lock)

    async def do_event_set(self, name, n):
        self.event.set()

    async def do_event_clear(self, name, n):
        self.event.clear()

    async def do_event_wait(self, name, n):
        return await self.event.wait()

    async def do_condition_wait(self, name, n):
        async with self.condition:
            return await self.condition.wait()

    async def do_condition_wait_for(self, name, n):
        async with self.condition:
            return await self.condition.wait_for(lambda: self.predicate == n % 3)

    async def do_condition_notify(self, name, n):
        async with self.condition:
            self.predicate = n % 3
            self.condition.notify(n % 3)

    async def do_condition_body(self, name, n, body):
        async with self.condition:
            return await self.body(name, body)

    # --- queues

    async def do_put(self, name, n):
        await self.queue.put(n)

    async def do_get(self, name, n):
        return await self.queue.get()

    async def do_put_nowait(self, name, n):
        self.queue.put_nowait(n)

    async def do_get_nowait(self, name, n):
        return self.queue.get_nowait()

    async def do_task_done(self, name, n):
        self.queue.task_done()

    async def do_join(self, name, n):
        await self.queue.join()

    async def do_put_priority(self, name, n):
        await self.priority_queue.put(n)

    async def do_get_priority(self, name, n):
        return await self.priority_queue.get()

    async def do_queue_state(self, name, n):
        return self.queue.qsize(), self.queue.full(), self.queue.empty()

    async def do_shutdown(self, name, n):
        self.queue.shutdown(immediate=n % 2 == 1)

    # --- generators

    async def do_async_generator(self, name, n):
        total = 0
        async for value in self.numbers(name, n % 4):
            total += value
        return total

    async def do_leave_generator(self, name, n):
        async for value in self.numbers(name, 5):
            if value == n % 4:
                break

    async def do_close_generator(self, name, n):
        generator = self.numbers(name, 5)
        for _ in range(n % 3):
            await generator.__anext__()
        return await generator.aclose()

    async def do_throw_generator(self, name, n):
        generator = self.numbers(name, 5)
        for _ in range(n % 3):
            await generator.__anext__()
        return await generator.athrow(KeyError(n))

    async def do_keep_generator(self, name, n):
        # One: those left at the end are closed in the order of a set.
        if self.kept is None:
            self.kept = self.numbers(name, 5)
        return await self.kept.__anext__()

    async def numbers(self, name, n):
        try:
            for number in range(n):
                await asyncio.sleep(0)
                yield number
        finally:
            self.note("generator", name, "ends")
            await asyncio.sleep(0)

    # --- odd

    async def do_custom_awaitable(self, name, n):
        return await Awaitable(self.futures[n % FUTURES], n)

    async def do_bare_yields(self, name, n):
        return await Yields([None] * (n % 4))

    async def do_bad_yield(self, name, n):
        return await Yields([n])

    async def do_bad_future(self, name, n):
        return await Yields([self.futures[n % FUTURES]])

    async def do_await_self(self, name, n):
        return await asyncio.current_task()

    async def do_stock_future(self, name, n):
        future = asyncio.Future(loop=self.loop)
        self.loop.call_soon(self.set_if_pending, future, n)
        return await future

    async def do_stock_task(self, name, n, body):
        return await self.spawn(f"{name}.0", body, lambda coro: asyncio.Task(coro, loop=self.loop))

    async def do_future_errors(self, name, n):
        future, said = self.futures[n % FUTURES], []
        for call in (future.result, future.exception, lambda: future.set_result(n)):
            try:
                said.append(words(call()))
            except BaseException as error:
                said.append(error_words(error))
        return said

    async def do_set_exception_class(self, name, n):
        self.futures[n % FUTURES].set_exception(IndexError)

    async def do_set_exception_stop(self, name, n):
        self.futures[n % FUTURES].set_exception(StopIteration)

    async def do_raise_stop(self, name, n):
        await Raises(StopIteration(n))

    async def do_leave_loop(self, name, n):
        raise SystemExit(n)

    async def do_leave_loop_soon(self, name, n):
        self.loop.call_soon(self.failing(name, KeyboardInterrupt(n)))

    async def do_repr(self, name, n):
        return words(self.target(n)), words(self.futures[n % FUTURES])

    async def do_concurrent(self, name, n):
        future = concurrent.futures.Future()
        self.loop.call_soon(self.resolve_concurrent, future, n)
        return await asyncio.wrap_future(future)

    @staticmethod
    def resolve_concurrent(future, n):
        if future.set_running_or_notify_cancel():
            future.set_result(n)

    async def do_threadsafe_task(self, name, n, body):
        async def tracked():
            task = asyncio.current_task()
            task.set_name(f"{name}.0")
            self.tasks.append(task)
            return await self.body(f"{name}.0", body)

        future = asyncio.run_coroutine_threadsafe(tracked(), self.loop)
        future.add_done_callback(lambda future: self.note(name, "concurrent future is done"))

    async def do_close_coroutine(self, name, n):
        coroutine = self.body(f"{name}.0", [("sleep0", 0)])
        coroutine.send(None)
        coroutine.close()

    async def do_stop_loop(self, name, n):
        self.loop.stop()

    # --- groups

    async def do_task_group(self, name, n, *bodies):
        async with self.group() as group:
            for number, body in enumerate(bodies):
                self.spawn(f"{name}.{number}", body, group.create_task)
        return "group done"

    async def do_task_group_body(self, name, n, first, *bodies):
        async with self.group() as group:
            for number, body in enumerate(bodies, 1):
                self.spawn(f"{name}.{number}", body, group.create_task)
            return await self.body(f"{name}.0", first)

    async def do_task_group_late(self, name, n, *bodies):
        async def add(group):
            await asyncio.sleep(0)
            for number, body in enumerate(bodies):
                self.spawn(f"{name}.{number}", body, group.create_task)

        async with self.group() as group:
            group.create_task(add(group))
        return "group done"

    @staticmethod
    def group():
        group = asyncio.TaskGroup()
        group._tasks = OrderedSet()
        return group

    async def do_uncancel(self, name, n):
        target = self.target(n)
        return hasattr(target, "uncancel") and target.uncancel()

    async def do_barrier(self, name, n):
        return await self.barrier.wait()

    async def do_barrier_state(self, name, n):
        return self.barrier.n_waiting, self.barrier.broken

    async def do_barrier_reset(self, name, n):
        await self.barrier.reset()

    async def do_barrier_abort(self, name, n):
        await self.barrier.abort()

    # --- eager

    def create_eager(self, coro):
        return type(self.loop.create_task(nothing()))(coro, loop=self.loop, eager_start=True)

    async def do_eager_task(self, name, n, *bodies):
        for number, body in enumerate(bodies):
            self.spawn(f"{name}.{number}", body, self.create_eager)

    async def do_eager_factory(self, name, n):
        self.loop.set_task_factory(asyncio.eager_task_factory if n % 2 else None)

    async def do_eager_gather(self, name, n, *bodies):
        children = [
            self.spawn(f"{name}.{number}", body, self.create_eager)
            for number, body in enumerate(bodies)
        ]
        return await asyncio.gather(*children)


async def nothing():
    return None


class Awaitable:
    """Awaits a future from a hand-written generator."""

    def __init__(self, future, n):
        self.future, self.n = future, n

    def __await__(self):
        yield
        result = yield from self.future.__await__()
        return result, self.n


class Yields:
    """Gives these objects to whoever runs the coroutine."""

    def __init__(self, objects):
        self.objects = objects

    def __await__(self):
        yield from self.objects
        return len(self.objects)


class Raises:
    """An iterator whose first step raises."""

    def __init__(self, error):
        self.error = error

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise self.error


class OrderedSet(dict):
    """Has a TaskGroup cancel its tasks in one order, which that of a set is not."""

    def add(self, item):
        self[item] = None

    def discard(self, item):
        self.pop(item, None)
