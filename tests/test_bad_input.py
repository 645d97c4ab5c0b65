"""What wrong use of the loop, of futures and of tasks gets: what it gets on stock asyncio."""

import asyncio
import contextvars
import errno
import gc
import os
import signal
import socket
import sys
import tempfile
import threading
import types

import pytest
from outcome import Cases, nothing, on_both, with_pair

pytestmark = pytest.mark.usefixtures("frozen_garbage")

CASES = Cases()
case, cases = CASES.one, CASES.each


# --- a closed loop


def closed(loop):
    loop.close()
    return loop


async def coroutine():
    return 1


CLOSED = {
    "run_forever": lambda loop: loop.run_forever(),
    "run_until_complete": lambda loop: run_closed(loop, coroutine()),
    "run_until_complete_future": lambda loop: loop.run_until_complete(loop.create_future()),
    "stop": lambda loop: loop.stop(),
    "close": lambda loop: loop.close(),
    "call_soon": lambda loop: loop.call_soon(nothing),
    "call_later": lambda loop: loop.call_later(1, nothing),
    "call_at": lambda loop: loop.call_at(1, nothing),
    "call_soon_threadsafe": lambda loop: loop.call_soon_threadsafe(nothing),
    "create_task": lambda loop: run_closed_task(loop, coroutine()),
    "run_in_executor": lambda loop: loop.run_in_executor(None, nothing),
    "add_signal_handler": lambda loop: loop.add_signal_handler(signal.SIGUSR1, nothing),
    "remove_signal_handler": lambda loop: loop.remove_signal_handler(signal.SIGUSR1),
    "add_reader": lambda loop: with_pair(lambda a, b: loop.add_reader(a, nothing)),
    "add_writer": lambda loop: with_pair(lambda a, b: loop.add_writer(a, nothing)),
    "remove_reader": lambda loop: with_pair(lambda a, b: loop.remove_reader(a)),
    "remove_writer": lambda loop: with_pair(lambda a, b: loop.remove_writer(a)),
    "sock_recv": lambda loop: step(loop.sock_recv(None, 1)),
    "create_connection": lambda loop: step(loop.create_connection(None, "127.0.0.1", 1)),
    "getaddrinfo": lambda loop: step(loop.getaddrinfo("127.0.0.1", 1)),
    "is_closed": lambda loop: loop.is_closed(),
    "is_running": lambda loop: loop.is_running(),
    "set_debug": lambda loop: loop.set_debug(True) or loop.get_debug(),
    "create_future": lambda loop: loop.create_future(),
    "call_exception_handler": lambda loop: loop.call_exception_handler({"message": "hello"}),
    "shutdown_asyncgens": lambda loop: step(loop.shutdown_asyncgens()),
    "shutdown_default_executor": lambda loop: step(loop.shutdown_default_executor()),
}


def run_closed(loop, coro):
    try:
        return loop.run_until_complete(coro)
    finally:
        coro.close()


def run_closed_task(loop, coro):
    try:
        return loop.create_task(coro)
    finally:
        coro.close()


def step(coro):
    """Run a coroutine to its first suspension, without a loop."""
    try:
        coro.send(None)
    except StopIteration as stop:
        return stop.value
    finally:
        coro.close()
    return "suspended"


for _name, _function in CLOSED.items():

    @cases(_function)
    def closed_loop(loop, function):
        return function(closed(loop))

    CASES[-1].__name__ = f"closed_loop[{_name}]"


# --- callbacks


@case
def call_soon_without_callback(loop):
    return loop.call_soon()


@case
def call_later_without_callback(loop):
    return loop.call_later(1)


@case
def call_soon_unknown_keyword(loop):
    return loop.call_soon(nothing, wrong=1)


@cases(1, None, "text")
def call_soon_not_callable_when_run(loop, what):
    loop.call_soon(what)
    loop.call_soon(loop.stop)
    return loop.run_forever()


@cases(1, None, "text", coroutine)
def call_soon_debug(loop, what):
    loop.set_debug(True)
    return loop.call_soon(what)


@cases(1, None, coroutine)
def call_later_debug(loop, what):
    loop.set_debug(True)
    return loop.call_later(0.1, what)


@cases(1, None, coroutine)
def call_soon_threadsafe_debug(loop, what):
    loop.set_debug(True)
    return loop.call_soon_threadsafe(what)


@cases(1, coroutine)
def run_in_executor_debug(loop, what):
    loop.set_debug(True)
    return loop.run_in_executor(None, what)


@cases(None, "soon", object)
def call_later_delay(loop, delay):
    return loop.call_later(delay, nothing)


@case
def call_at_none(loop):
    return loop.call_at(None, nothing)


@cases("soon", object)
def call_at_when(loop, when):
    """TypeError, sooner or later: asyncio's words depend on what it compares the time with."""
    try:
        loop.call_at(when, nothing)
    except TypeError:
        return "TypeError"


@cases(1, "context", dict)
def call_soon_wrong_context(loop, context):
    loop.call_soon(nothing, context=context)
    loop.call_soon(loop.stop)
    return loop.run_forever()


@case
def call_soon_context_entered(loop):
    """Entering a context twice is the callback's error, reported to the exception handler."""
    context = contextvars.copy_context()

    def inside():
        loop.call_soon(nothing, context=context)
        loop.call_soon(loop.stop)
        loop.run_forever()

    return context.run(inside)


@case
def callback_raises(loop):
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(loop.stop)
    return loop.run_forever()


@cases(KeyboardInterrupt, SystemExit, GeneratorExit, BaseException)
def callback_raises_base_exception(loop, exception):
    def fail():
        raise exception("from the callback")

    loop.call_soon(fail)
    loop.call_soon(loop.stop)
    return loop.run_forever()


@cases(KeyboardInterrupt, SystemExit, GeneratorExit, BaseException)
def task_raises_base_exception(loop, exception):
    async def fail():
        raise exception("from the task")

    return loop.run_until_complete(fail())


def in_thread(function):
    """What the function does in another thread; the loop is not running there."""
    outcome = []

    def run():
        try:
            outcome.append(function())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    (value,) = outcome
    return value


@cases("call_soon", "call_later", "call_at", "call_soon_threadsafe")
def wrong_thread_debug(loop, method):
    loop.set_debug(True)
    arguments = () if method.startswith("call_soon") else (1,)

    async def main():
        return in_thread(lambda: getattr(loop, method)(*arguments, nothing))

    result = loop.run_until_complete(main())
    return result if isinstance(result, BaseException) else type(result).__name__


@case
def wrong_thread_future_debug(loop):
    loop.set_debug(True)

    async def main():
        future = loop.create_future()
        future.add_done_callback(print)
        return in_thread(lambda: future.set_result(1))

    return loop.run_until_complete(main())


@case
def add_signal_handler_in_thread(loop):
    return in_thread(lambda: loop.add_signal_handler(signal.SIGUSR1, nothing))


# --- signals


@cases(0, 1000, -1, "TERM", None, signal.SIGKILL, signal.SIGSTOP)
def add_signal_handler_bad_signal(loop, number):
    return loop.add_signal_handler(number, nothing)


@cases(0, 1000, "TERM", signal.SIGKILL, signal.SIGUSR1)
def remove_signal_handler_bad_signal(loop, number):
    return loop.remove_signal_handler(number)


@case
def add_signal_handler_coroutine_function(loop):
    return loop.add_signal_handler(signal.SIGUSR1, coroutine)


@case
def add_signal_handler_coroutine(loop):
    coro = coroutine()
    try:
        return loop.add_signal_handler(signal.SIGUSR1, coro)
    finally:
        coro.close()


# --- file descriptors

JUNK_FDS = (-1, 10_000, "0", None, 1.5, object)


@cases(*JUNK_FDS)
def add_reader_junk(loop, fd):
    return loop.add_reader(fd, nothing)


@cases(*JUNK_FDS)
def add_writer_junk(loop, fd):
    return loop.add_writer(fd, nothing)


@cases(*JUNK_FDS)
def remove_reader_junk(loop, fd):
    return loop.remove_reader(fd)


@cases(*JUNK_FDS)
def remove_writer_junk(loop, fd):
    return loop.remove_writer(fd)


@case
def add_reader_closed_fd(loop):
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    os.close(write_fd)
    try:
        loop.add_reader(read_fd, nothing)
    except OSError as error:
        return errno.errorcode[error.errno]


@case
def add_reader_regular_file(loop):
    with tempfile.TemporaryFile() as file:
        return loop.add_reader(file, nothing)


@case
def add_reader_closed_socket(loop):
    sock = socket.socket()
    sock.close()
    return loop.add_reader(sock, nothing)


@case
def remove_reader_of_closed_socket(loop):
    a, b = socket.socketpair()
    loop.add_reader(a, nothing)
    a.close()
    b.close()
    return loop.remove_reader(a)


@case
def remove_reader_twice(loop):
    def both(a, b):
        loop.add_reader(a, nothing)
        loop.add_writer(a, nothing)
        removals = (loop.remove_reader, loop.remove_writer)
        return [remove(a) for remove in removals for _ in range(2)]

    return with_pair(both)


@cases("add_reader", "add_writer", "remove_reader", "remove_writer")
def fd_of_a_transport(loop, method):
    arguments = (nothing,) if method.startswith("add") else ()
    return with_transport(loop, lambda sock: getattr(loop, method)(sock, *arguments))


@cases("sock_recv", "sock_recv_into", "sock_sendall", "sock_connect", "sock_accept")
def sock_method_on_a_transport(loop, method):
    arguments = {
        "sock_recv": (10,),
        "sock_recv_into": (bytearray(10),),
        "sock_sendall": (b"x",),
        "sock_connect": (("127.0.0.1", 1),),
        "sock_accept": (),
    }[method]

    async def use(sock):
        return await getattr(loop, method)(sock, *arguments)

    return with_transport(loop, lambda sock: use(sock))


def with_transport(loop, function):
    """Call (and await) a function of the socket of an open transport."""

    async def main():
        a, b = socket.socketpair()
        with b:
            transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
            try:
                value = function(a)
                return await value if isinstance(value, types.CoroutineType) else value
            finally:
                transport.close()
                await asyncio.sleep(0)

    return loop.run_until_complete(main())


@cases("sock_recv", "sock_accept", "sock_sendall", "sock_recv_into", "sock_connect")
def blocking_socket_debug(loop, method):
    loop.set_debug(True)
    arguments = {
        "sock_recv": (10,),
        "sock_recv_into": (bytearray(10),),
        "sock_sendall": (b"x",),
        "sock_connect": (("127.0.0.1", 1),),
        "sock_accept": (),
    }[method]

    async def main():
        a, b = socket.socketpair()
        with a, b:
            await getattr(loop, method)(a, *arguments)

    return loop.run_until_complete(main())


# --- running, nesting, mixing


@cases(None, 1, "coroutine", coroutine)
def run_until_complete_wrong_type(loop, what):
    return loop.run_until_complete(what)


@case
def run_until_complete_foreign_future(loop):
    other = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(other.create_future())
    finally:
        other.close()


@cases("run_forever", "run_until_complete")
def nested_same_loop(loop, method):
    async def main():
        future = loop.create_future()
        arguments = () if method == "run_forever" else (future,)
        return getattr(loop, method)(*arguments)

    return loop.run_until_complete(main())


@case
def nested_other_loop(loop):
    other = type(loop)()

    async def main():
        other.run_forever()

    try:
        return loop.run_until_complete(main())
    finally:
        other.close()


@case
def nested_stock_loop(loop):
    other = asyncio.SelectorEventLoop()

    async def main():
        other.run_forever()

    try:
        return loop.run_until_complete(main())
    finally:
        other.close()


@case
def inside_stock_loop(loop):
    other = asyncio.SelectorEventLoop()

    async def main():
        loop.run_forever()

    try:
        return other.run_until_complete(main())
    finally:
        other.close()


@case
def run_in_two_threads(loop):
    async def main():
        return in_thread(loop.run_forever)

    return loop.run_until_complete(main())


@case
def close_while_running(loop):
    async def main():
        loop.close()

    return loop.run_until_complete(main())


@case
def asyncio_run_while_running(loop):
    async def main():
        coro = coroutine()
        try:
            asyncio.run(coro)
        finally:
            coro.close()

    return loop.run_until_complete(main())


@case
def stopped_before_completion(loop):
    async def main():
        loop.stop()
        await asyncio.sleep(10)

    task = loop.create_task(main())
    try:
        return loop.run_until_complete(task)
    finally:
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))


@case
def await_future_of_another_loop(loop):
    other = asyncio.new_event_loop()

    async def main():
        await other.create_future()

    try:
        return loop.run_until_complete(main())
    finally:
        other.close()


@case
def gather_of_two_loops(loop):
    other = asyncio.new_event_loop()

    async def main():
        await asyncio.gather(loop.create_future(), other.create_future())

    try:
        return loop.run_until_complete(main())
    finally:
        other.close()


@cases(1, "text", object)
def await_junk_yield(loop, what):
    @types.coroutine
    def junk():
        yield what

    async def main():
        try:
            await junk()
        except RuntimeError as error:
            return str(error).partition(":")[2] if what is not object else "object"

    return loop.run_until_complete(main())


@case
def await_itself(loop):
    async def main():
        await task

    task = loop.create_task(main())
    return loop.run_until_complete(task)


@case
def future_yielded_without_await(loop):
    @types.coroutine
    def bare():
        yield loop.create_future()

    async def main():
        await bare()

    return loop.run_until_complete(main())


@cases(None, 1, coroutine)
def create_task_wrong_type(loop, what):
    return loop.create_task(what)


@case
def create_task_of_a_future(loop):
    return loop.create_task(loop.create_future())


@case
def create_task_unknown_keyword(loop):
    coro = coroutine()
    try:
        return loop.create_task(coro, nonsense=1)
    finally:
        coro.close()


@cases(1, "context")
def create_task_wrong_context(loop, context):
    coro = coroutine()
    try:
        loop.create_task(coro, context=context)
        loop.call_soon(loop.stop)
        return loop.run_forever()
    finally:
        coro.close()


@cases(3, "factory")
def set_task_factory(loop, factory):
    return loop.set_task_factory(factory)


@case
def task_factory_returns_junk(loop):
    loop.set_task_factory(lambda loop, coro, **options: coro.close() or "junk")
    return loop.create_task(coroutine())


@cases(3, "handler")
def set_exception_handler(loop, handler):
    return loop.set_exception_handler(handler)


@cases(3, "executor", None)
def set_default_executor(loop, executor):
    return loop.set_default_executor(executor)


@case
def exception_handler_raises(loop):
    """The handler's own error goes to the default handler, which logs it."""

    def handler(loop, context):
        raise ZeroDivisionError("in the handler")

    loop.set_exception_handler(handler)
    return loop.call_exception_handler({"message": "first"})


@cases(KeyboardInterrupt, SystemExit)
def exception_handler_raises_base(loop, exception):
    def handler(loop, context):
        raise exception("in the handler")

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(loop.stop)
    return loop.run_forever()


@case
def call_exception_handler_without_context(loop):
    return loop.call_exception_handler()


# --- futures and tasks


def finished(loop, how):
    future = loop.create_future()
    if how == "result":
        future.set_result(1)
    elif how == "exception":
        future.set_exception(ValueError("first"))
        future.exception()
    else:
        future.cancel("first")
    return future


@cases("result", "exception", "cancel")
def set_result_twice(loop, how):
    return finished(loop, how).set_result(2)


@cases("result", "exception", "cancel")
def set_exception_twice(loop, how):
    return finished(loop, how).set_exception(ValueError("second"))


@cases("result", "exception", "cancel")
def cancel_finished(loop, how):
    return finished(loop, how).cancel()


@case
def result_not_set(loop):
    return loop.create_future().result()


@case
def exception_not_set(loop):
    return loop.create_future().exception()


@cases("result", "exception")
def result_of_cancelled(loop, method):
    return getattr(finished(loop, "cancel"), method)()


@cases(StopIteration, StopIteration("x"), 1, "text", object, None, ValueError, KeyboardInterrupt)
def set_exception_junk(loop, exception):
    future = loop.create_future()
    future.set_exception(exception)
    return future.exception()


@case
def set_result_without_argument(loop):
    return loop.create_future().set_result()


@cases("set_result", "set_exception")
def refused_on_a_task(loop, method):
    task = loop.create_task(coroutine())
    try:
        return getattr(task, method)(1)
    finally:
        loop.run_until_complete(task)


@case
def task_result_not_set(loop):
    task = loop.create_task(coroutine())
    try:
        return task.result()
    finally:
        loop.run_until_complete(task)


@case
def add_done_callback_not_callable(loop):
    future = loop.create_future()
    future.add_done_callback(1)
    future.set_result(1)
    loop.call_soon(loop.stop)
    return loop.run_forever()


@case
def add_done_callback_without_argument(loop):
    return loop.create_future().add_done_callback()


@cases(1, "context")
def add_done_callback_wrong_context(loop, context):
    future = loop.create_future()
    future.add_done_callback(print, context=context)
    future.set_result(1)
    loop.call_soon(loop.stop)
    return loop.run_forever()


@case
def done_callback_raises(loop):
    def fail(future):
        raise ZeroDivisionError("in the callback")

    future = loop.create_future()
    future.add_done_callback(fail)
    future.set_result(1)
    loop.call_soon(loop.stop)
    return loop.run_forever()


@case
def exception_never_retrieved(loop):
    future = loop.create_future()
    future.set_exception(ValueError("nobody looked"))
    del future
    gc.collect()


@case
def task_exception_never_retrieved(loop):
    async def fail():
        raise ValueError("nobody looked")

    task = loop.create_task(fail())
    loop.call_soon(loop.stop)
    loop.run_forever()
    del task
    gc.collect()


@case
def pending_task_destroyed(loop):
    async def wait_for_ever():
        await loop.create_future()

    task = loop.create_task(wait_for_ever())
    loop.call_soon(loop.stop)
    loop.run_forever()
    del task
    gc.collect()


@case
def log_traceback_only_false(loop):
    loop.create_future()._log_traceback = True


@case
def delete_log_traceback(loop):
    del loop.create_future()._log_traceback


@cases("__init__", "add_done_callback", "result", "done", "cancel", "get_loop", "exception")
def future_uninitialised(loop, method):
    Future = type(loop.create_future())
    future = Future.__new__(Future)
    arguments = {"__init__": (1,), "add_done_callback": (print,)}.get(method, ())
    return getattr(future, method)(*arguments)


# Not get_coro: before 3.13 it crashes on stock asyncio.
@cases("get_name", "result", "done", "cancel", "get_stack", "set_name", "__repr__")
def task_uninitialised(loop, method):
    first = loop.create_task(coroutine())
    loop.run_until_complete(first)
    task = type(first).__new__(type(first))
    arguments = ("name",) if method == "set_name" else ()
    return getattr(task, method)(*arguments)


@case
def iterator_sent_junk(loop):
    iterator = iter(loop.create_future())
    next(iterator)
    return iterator.send(1)


@case
def iterator_thrown_junk(loop):
    iterator = iter(loop.create_future())
    return iterator.throw(1)


@cases("text", 1)
def future_with_wrong_loop(loop, what):
    return type(loop.create_future())(loop=what)


@case
def ensure_future_foreign_loop(loop):
    other = asyncio.new_event_loop()
    try:
        return asyncio.ensure_future(loop.create_future(), loop=other)
    finally:
        other.close()


@case
def wait_for_foreign_future(loop):
    other = asyncio.new_event_loop()

    async def main():
        await asyncio.wait_for(other.create_future(), 0.01)

    try:
        return loop.run_until_complete(main())
    finally:
        other.close()


@case
def eager_task_that_raises(loop):
    async def fail():
        raise ValueError("at once")

    async def main():
        options = {"eager_start": True} if sys.version_info >= (3, 12) else {}
        Task = type(asyncio.current_task())
        task = Task(fail(), loop=loop, **options)
        await asyncio.wait([task])
        return task.exception()

    return loop.run_until_complete(main())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_same_as_stock_asyncio(case):
    stock, ours = on_both(case)
    assert ours.lines() == stock.lines()
