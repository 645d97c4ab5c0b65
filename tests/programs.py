"""Random asyncio programs as data: how a seed makes one, how one is made smaller, how one reads.

A program is a list of tasks, a task a list of statements, a statement a tuple of a name, a number
that chooses what it works on, and the bodies of the tasks that it starts. What runs a program is in
machine.py; nothing in one depends on the wall clock, so two loops that follow asyncio's order of
events write down the same trace, event by event.
"""

import random
import sys

FUTURES = 4
NUMBERS = 12

# How the statements read; {n} is the number, {f} that of a future, {t} a time in turns of the loop.
# A program takes a few of these groups, so that what it does meets in the same places.
CORE = {
    "sleep0": "await sleep(0)",
    "await_future": "await futures[{f}]",
    "await_task": "await shield(tasks[{n}])",
    "set_result": "futures[{f}].set_result({n})  # or a new future, if it is done",
    "set_exception": "futures[{f}].set_exception(KeyError({n}))",
    "cancel_future": "futures[{f}].cancel('by me')",
    "cancel_task": "tasks[{n}].cancel('by me')",
    "set_variable": "variable.set({n})",
    "raise_error": "if {n} % 3 == 0: raise ValueError({n})",
    "state": "note([outcome(x) for x in futures + tasks])",
    "spawn": "spawn:",
    "await_child": "await each of:",
    "try": "try, except (ValueError, KeyError, TimeoutError):",
    "suppress": "try, except CancelledError:",
}
GROUPS = {
    "callbacks": {
        "call_soon": "loop.call_soon(callback)",
        "call_soon_threadsafe": "loop.call_soon_threadsafe(callback)",
        "call_soon_chain": "loop.call_soon(a callback that calls call_soon, {n} % 3 times)",
        "call_soon_fails": "loop.call_soon(a callback that raises {n})",
        "cancel_handle": "handles[{n}].cancel()",
        "cancel_handle_soon": "loop.call_soon(handles[{n}].cancel)",
        "handle_state": "note(handles[{n}])",
        "add_done_callback": "tasks[{n}].add_done_callback(callback)",
        "add_done_callback_fails": "futures[{f}].add_done_callback(a callback that raises)",
        "remove_done_callback": "futures[{f}].remove_done_callback(callback added {n} % 3 times)",
        "in_context": "call_soon in a context with variable = 200 + {n}, twice",
        "task_in_context": "create_task in a context with variable = 300 + {n}:",
    },
    "cancel": {
        "cancel_self": "current_task().cancel(), if {n} % 2: uncancel()",
        "cancel_self_nothing": "current_task().cancel(); await sleep(0)",
        "cancel_twice": "tasks[{n}].cancel('one'); tasks[{n}].cancel('two')",
        "cancel_object": "tasks[{n}].cancel(({n}, None))",
        "cancel_soon": "loop.call_soon(tasks[{n}].cancel, 'soon')",
        "cancel_when_done": "futures[{f}].add_done_callback(tasks[{n}].cancel)",
        "cancel_and_set": "tasks[{n}].cancel(); futures[{f}].set_result({n})",
        "set_and_cancel": "futures[{f}].set_result({n}); tasks[{n}].cancel()",
        "cancel_child": "spawn, sleep(0), cancel, await it:",
        "cancelled_waits": "except CancelledError: await futures[{f}], of:",
        "finally_sleep": "finally: await sleep(0), of:",
        "cancelling": "note(tasks[{n}].cancelling(), tasks[{n}].cancelled())",
        "nested_suppress": "try, except CancelledError: cancel self, of:",
    },
    "timers": {
        "sleep": "await sleep({t})",
        "call_later": "loop.call_later({t}, callback)",
        "call_later_0": "loop.call_later({n} % 2 - 1, callback)",
        "call_at": "loop.call_at(start + {n} % 4 * 3, callback)",
        "call_at_past": "loop.call_at(start - {n} % 3, callback)",
        "cancel_timer": "handles[{n}].cancel()",
        "timer_future": "loop.call_later({t}, futures[{f}].set_result, {n})",
        "timer_cancels": "loop.call_later({t}, tasks[{n}].cancel, 'late')",
        "many_timers": "16 timers with 4 deadlines, half of them cancelled",
        "sweep_timers": "128 timers with 4 deadlines, most of them cancelled",
        "time": "note(loop.time())",
    },
    "timeouts": {
        "wait_for": "await wait_for(timeout={t}):",
        "wait_for_none": "await wait_for(timeout=None):",
        "wait_for_0": "await wait_for(timeout=min({n} % 3 - 1, 0)):",
        "wait_for_future": "await wait_for(futures[{f}], {t})",
        "wait_timeout": "await wait(timeout={t}):",
        "as_completed_timeout": "for future in as_completed(timeout={t}): await future, of:",
    },
    "combinators": {
        "gather": "await gather:",
        "gather_exceptions": "await gather(return_exceptions=True):",
        "gather_futures": "await gather(futures[0], futures[{f}], tasks[{n}])",
        "gather_cancelled": "cancel the gather by call_soon:",
        "wait_all": "await wait(return_when=ALL_COMPLETED):",
        "wait_first": "await wait(return_when=FIRST_COMPLETED):",
        "wait_exception": "await wait(return_when=FIRST_EXCEPTION):",
        "shield": "await shield:",
        "shield_future": "await shield(futures[{f}])",
        "as_completed": "for future in as_completed: await future, of:",
    },
    "locks": {
        "lock": "async with lock:",
        "semaphore": "async with semaphore:",
        "bounded_semaphore": "async with bounded_semaphore:",
        "release_semaphore": "bounded_semaphore.release()",
        "lock_state": "note(lock.locked(), semaphore.locked())",
        "event_set": "event.set()",
        "event_wait": "await event.wait()",
        "event_clear": "event.clear()",
        "condition_wait": "async with condition: await condition.wait()",
        "condition_wait_for": "async with condition: await condition.wait_for(it is {n} % 3)",
        "condition_notify": "async with condition: condition.notify({n} % 3)",
        "condition_body": "async with condition:",
    },
    "queues": {
        "put": "await queue.put({n})",
        "get": "await queue.get()",
        "put_nowait": "queue.put_nowait({n})",
        "get_nowait": "queue.get_nowait()",
        "task_done": "queue.task_done()",
        "join": "await queue.join()",
        "put_priority": "await priority_queue.put({n})",
        "get_priority": "await priority_queue.get()",
        "queue_state": "note(queue.qsize(), queue.full(), queue.empty())",
    },
    "generators": {
        "async_generator": "async for value in numbers({n} % 4): pass",
        "leave_generator": "async for value in numbers(5): break  # and drop it",
        "close_generator": "generator.aclose() after {n} % 3 values",
        "throw_generator": "generator.athrow(KeyError) after {n} % 3 values",
        "keep_generator": "anext(a generator that is kept for ever)",
    },
    "odd": {
        "custom_awaitable": "await an object with __await__, on futures[{f}]",
        "bare_yields": "await {n} % 4 bare yields",
        "bad_yield": "yield {n} to the loop",
        "bad_future": "yield futures[{f}] to the loop, not from",
        "await_self": "await current_task()",
        "stock_future": "await asyncio.Future(), which call_soon resolves",
        "stock_task": "await asyncio.Task:",
        "future_errors": "what futures[{f}] says to set_result, result, exception",
        "set_exception_class": "futures[{f}].set_exception(IndexError)",
        "set_exception_stop": "futures[{f}].set_exception(StopIteration)",
        "raise_stop": "raise StopIteration({n})",
        "leave_loop": "raise SystemExit({n})",
        "leave_loop_soon": "loop.call_soon(a callback that raises KeyboardInterrupt)",
        "repr": "note(tasks[{n}], futures[{f}])",
        "concurrent": "await wrap_future(a concurrent future, which call_soon resolves)",
        "threadsafe_task": "run_coroutine_threadsafe:",
        "close_coroutine": "a coroutine, begun by hand and closed",
        "stop_loop": "loop.stop()",
    },
    "connection": {
        "write": "writers[{p}].write(...)",
        "write_line": "writers[{p}].write(...\\n)",
        "writelines": "writers[{p}].writelines(...)",
        "write_long": "writers[{p}].write(more than the reader's limit)",
        "write_two": "writers[{p}].write(...) and writers[1 - {p}].write(...)",
        "drain": "await writers[{p}].drain()",
        "read": "await readers[{p}].read({n})",
        "readline": "await readers[{p}].readline()",
        "readexactly": "await readers[{p}].readexactly({n})",
        "readuntil": "await readers[{p}].readuntil(b'b')",
        "write_eof": "writers[{p}].write_eof()",
        "close_writer": "writers[{p}].close()",
        "wait_closed": "await writers[{p}].wait_closed()",
        "stream_state": "note(readers[{p}].at_eof(), writers[{p}].is_closing())",
    },
    "protocols": {
        "send": "transports[{p}].write(...)",
        "send_soon": "loop.call_soon(transports[{p}].write, ...)",
        "send_large": "transports[{p}].write(300000 bytes)",
        "send_end": "transports[{p}].write_eof()",
        "pause_reading": "transports[{p}].pause_reading()",
        "resume_reading": "transports[{p}].resume_reading()",
        "flip_reading": "transports[{p}].pause_reading(), resume_reading()",
        "close_transport": "transports[{p}].close()",
        "abort_transport": "transports[{p}].abort()",
        "await_data": "await the next data of transports[{p}]",
        "change_protocol": "transports[{p}].set_protocol(a new one)",
        "transport_state": "note(transports[{p}].is_closing(), .is_reading())",
    },
    "descriptors": {
        "raw_send": "sockets[{s}].send(...)",
        "raw_recv": "sockets[{p}].recv(20)",
        "add_reader": "loop.add_reader(sockets[{p}], receive)",
        "remove_reader": "loop.remove_reader(sockets[{p}])",
        "add_writer": "loop.add_writer(sockets[{p}], a callback that removes it)",
        "remove_writer": "loop.remove_writer(sockets[{p}])",
        "sock_recv": "await loop.sock_recv(sockets[{p} + 2], 3)",
        "sock_recv_into": "await loop.sock_recv_into(sockets[{p} + 2], buffer)",
        "sock_sendall": "await loop.sock_sendall(sockets[{p} + 2], ...)",
    },
}
if sys.version_info >= (3, 11):
    GROUPS["timeouts"] |= {
        "timeout": "async with timeout({t}):",
        "timeout_none": "async with timeout(None):",
        "timeout_0": "async with timeout(min({n} % 3 - 1, 0)):",
        "timeout_at": "async with timeout_at(start + {t}):",
        "reschedule": "async with timeout(None) as scope: scope.reschedule(now + {t}), of:",
    }
    GROUPS["groups"] = {
        "task_group": "async with TaskGroup():",
        "task_group_body": "async with TaskGroup(), the first in its body:",
        "task_group_late": "a task in a TaskGroup that adds one to it:",
        "uncancel": "note(tasks[{n}].uncancel())",
        "barrier": "await barrier.wait()",
        "barrier_state": "note(barrier.n_waiting, barrier.broken)",
        "barrier_reset": "await barrier.reset()",
        "barrier_abort": "await barrier.abort()",
    }
if sys.version_info >= (3, 12):
    GROUPS["eager"] = {
        "eager_task": "Task(eager_start=True):",
        "eager_factory": "loop.set_task_factory({n} % 2 and eager_task_factory)",
        "eager_gather": "await gather of eager tasks:",
    }
if sys.version_info >= (3, 13):
    GROUPS["queues"] |= {"shutdown": "queue.shutdown(immediate={n} % 2)"}
    GROUPS["combinators"] |= {
        "as_completed_async": "async for future in as_completed: await future, of:"
    }
ALL = dict(CORE)
for group in GROUPS.values():
    ALL.update(group)
CONNECTED = ("connection", "protocols", "descriptors")
# Bodies that the same task runs, and others that can have but one.
SINGLE = {
    name
    for name, text in ALL.items()
    if text.startswith(("async with", "try", "except", "finally"))
} - {"task_group", "task_group_body"} | {
    "cancel_child",
    "task_in_context",
    "wait_for",
    "wait_for_none",
    "wait_for_0",
    "shield",
    "stock_task",
    "threadsafe_task",
}


def generate(seed):
    """The program of a seed.

    drive: how it is run, see machine.py. eager: tasks start eagerly (3.12 and later).
    """
    chance = random.Random(seed)
    groups = chance.sample(sorted(GROUPS), chance.choice((1, 2, 2, 3, 3, 4)))
    names = [name for group in groups for name in GROUPS[group]]
    # As often as all the others, or they would be lost among them.
    names += chance.choices(sorted(CORE), k=len(names))
    connected = sorted(set(groups) & set(CONNECTED))
    if connected:
        # What a poll has found when the loop is left asyncio does twice in its next turn.
        names = [name for name in names if not name.startswith("leave_loop")]
    tasks = [block(chance, names, depth=2) for _ in range(chance.randint(1, 4))]
    return {
        "drive": "turns" if connected else chance.choice(("ready", "ticks", "turns")),
        "connected": connected,
        "eager": sys.version_info >= (3, 12) and chance.random() < 0.2,
        # In debug mode ours does not take back an event that pause_reading() comes before.
        "debug": chance.random() < 0.1 and "protocols" not in connected,
        "tasks": tasks,
    }


def block(chance, names, depth):
    return [statement(chance, names, depth) for _ in range(chance.randint(1, 6))]


def statement(chance, names, depth):
    while True:
        name, number = chance.choice(names), chance.randrange(NUMBERS)
        if not has_bodies(name):
            return (name, number)
        if depth:
            count = 1 if name in SINGLE else chance.randint(1, 3)
            return (name, number, *(block(chance, names, depth - 1) for _ in range(count)))


def has_bodies(name):
    return ALL[name].endswith(":")


def features(program):
    """The names of its statements."""
    found = set()

    def walk(body):
        for name, _, *bodies in body:
            found.add(name)
            for inner in bodies:
                walk(inner)

    for body in program["tasks"]:
        walk(body)
    return found


def text(program):
    """How it reads: like Python, with each task that a statement starts under it."""
    flags = [f"loop driven by {program['drive']}"]
    flags += [flag for flag in ("eager", "debug") if program[flag]]
    flags += [f"with {kind}" for kind in program["connected"]]
    lines = [f"# {', '.join(flags)}"]

    def write(body, indent):
        for name, number, *bodies in body:
            words = ALL[name].format(
                n=number, p=number % 2, s=number % 4, f=number % FUTURES, t=number % 6
            )
            lines.append(f"{indent}{words}")
            for index, inner in enumerate(bodies):
                deeper = indent + "    "
                if name not in SINGLE:
                    lines.append(f"{deeper}task {index}:")
                    deeper += "    "
                write(inner, deeper)

    for index, body in enumerate(program["tasks"]):
        lines.append(f"async def t{index}():")
        write(body, "    ")
    return "\n".join(lines)


def reduce(program, differs, tries=2000):
    """A program as small as can be found for which `differs(program)` still holds.

    Large parts are left out first, then single statements; what is left is made simpler.
    """
    size = weight(program)
    while tries > 0:
        for candidate in simpler(program):
            tries -= 1
            if weight(candidate) < size and differs(candidate):
                program, size = candidate, weight(candidate)
                break
            if tries == 0:
                break
        else:
            break
    return program


def weight(program):
    """What reduce() makes smaller: statements first, then how special they are."""

    def of(body):
        return sum(
            1000 + number + sum(100 + of(inner) for inner in bodies) for _, number, *bodies in body
        )

    special = 10 * sum(program[flag] for flag in ("eager", "debug"))
    special += 10 * len(program["connected"])
    special += 10 * ("ready", "ticks", "turns").index(program["drive"])
    return special + sum(100 + of(body) for body in program["tasks"])


def simpler(program):
    for tasks in shorter(program["tasks"]):
        yield {**program, "tasks": tasks}
    for index, body in enumerate(program["tasks"]):
        for changed in simpler_bodies(body):
            tasks = [*program["tasks"][:index], changed, *program["tasks"][index + 1 :]]
            yield {**program, "tasks": tasks}
    for flag in ("eager", "debug"):
        yield {**program, flag: False}
    names = features(program)
    used = [kind for kind in program["connected"] if names & set(GROUPS[kind])]
    yield {**program, "connected": used}
    if not used:
        yield {**program, "connected": [], "drive": "ready"}
        yield {**program, "connected": [], "drive": "ticks"}


def shorter(items):
    """Copies with a half, a quarter, ..., one element left out."""
    size = len(items) // 2
    while size > 0:
        for start in range(0, len(items), size):
            rest = [*items[:start], *items[start + size :]]
            if rest:
                yield rest
        size //= 2


def simpler_bodies(body):
    yield from shorter(body)
    for index, (name, number, *bodies) in enumerate(body):
        before, after = body[:index], body[index + 1 :]
        for inner in bodies:
            # What a statement starts, in its place.
            yield [*before, *inner, *after]
        for fewer in shorter(bodies):
            yield [*before, (name, number, *fewer), *after]
        for position, inner in enumerate(bodies):
            for changed in simpler_bodies(inner):
                others = [*bodies[:position], changed, *bodies[position + 1 :]]
                yield [*before, (name, number, *others), *after]
        for smaller in range(number):
            yield [*before, (name, smaller, *bodies), *after]
