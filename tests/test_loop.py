"""csrc/loop.c and pkg/ouroloop/loop.py: the Loop type."""

import asyncio
import gc
import re
import sys
import warnings
import weakref

import ouroloop
import pytest


def test_it_is_an_asyncio_loop(loop):
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert isinstance(loop, asyncio.BaseEventLoop)
    assert repr(loop) == "<Loop running=False closed=False debug=False>"


def test_attributes_of_asyncio_are_the_ones_c_reads(loop):
    assert loop._closed is False
    assert loop._debug is False
    loop.set_debug(1)
    assert loop.get_debug() is True
    loop.set_debug(False)
    assert loop._thread_id is None
    assert loop._task_factory is None


def test_closed_loop_refuses(loop):
    loop.close()
    loop.close()
    assert loop.is_closed()
    for call in (
        lambda: loop.call_soon(print),
        lambda: loop.call_soon_threadsafe(print),
        lambda: loop.call_later(1, print),
        lambda: loop.call_at(1, print),
        lambda: loop.run_forever(),
        lambda: loop._run_once(),
        lambda: loop.add_reader(0, print),
    ):
        with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
            call()


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_missing_and_unknown_arguments(loop, method):
    stock = asyncio.SelectorEventLoop()
    try:
        for args, kwargs in (((), {}), ((1,), {}), ((1, print), {"other": 2})):
            if (method.startswith("call_soon") and args == (1,)) or not hasattr(loop, method):
                continue
            messages = []
            for each in (loop, stock):
                with pytest.raises(TypeError) as caught:
                    getattr(each, method)(*args, **kwargs)
                messages.append(str(caught.value))
            assert messages[0] == messages[1]
    finally:
        stock.close()


def test_instance_may_replace_call_soon(loop):
    calls = []
    original = loop.call_soon

    def call_soon(callback, *args, context=None):
        calls.append(callback)
        return original(callback, *args, context=context)

    async def main():
        await asyncio.sleep(0)

    loop.call_soon = call_soon
    loop.run_until_complete(main())
    assert len(calls) >= 2
    del loop.call_soon
    calls.clear()
    loop.run_until_complete(main())
    assert calls == []


def test_subclass_may_replace_call_soon():
    class Counting(ouroloop.Loop):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def call_soon(self, *args, **kwargs):
            self.calls += 1
            return super().call_soon(*args, **kwargs)

    loop = Counting()
    try:
        loop.run_until_complete(asyncio.sleep(0))
        assert loop.calls >= 2
    finally:
        loop.close()


def test_subclass_may_replace_call_exception_handler():
    class Telling(ouroloop.Loop):
        told = None

        def call_exception_handler(self, context):
            self.told = context

    loop = Telling()
    try:
        loop.call_soon(lambda: 1 / 0)
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert isinstance(loop.told["exception"], ZeroDivisionError)
    finally:
        loop.close()


def test_task_factory_gets_only_what_the_caller_gave(loop):
    seen = []

    def factory(loop, coro, **kwargs):
        seen.append(kwargs)
        return asyncio.Task(coro, loop=loop)

    loop.set_task_factory(factory)
    assert loop.get_task_factory() is factory
    loop.run_until_complete(loop.create_task(asyncio.sleep(0)))
    assert seen == [{}]
    with pytest.raises(TypeError, match="task factory must be a callable or None"):
        loop.set_task_factory(3)
    loop.set_task_factory(None)
    assert type(loop.create_future()) is ouroloop.Future


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_task_factory(loop):
    order = []

    async def child():
        order.append("child")

    async def main():
        loop.set_task_factory(asyncio.eager_task_factory)
        task = loop.create_task(child())
        order.append("created")
        await task

    loop.run_until_complete(main())
    assert order == ["child", "created"]


def test_debug_mode_logs_slow_callbacks_and_tasks(loop, caplog):
    import time

    async def slow_task():
        time.sleep(0.02)

    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    loop.call_soon(time.sleep, 0.02)
    loop.run_until_complete(slow_task())
    messages = [record.getMessage() for record in caplog.records]
    assert any("Executing <Handle sleep" in message for message in messages)
    assert any("Executing <Task finished" in message for message in messages)
    told = [message for message in messages if "Executing" in message]
    assert all(re.search(r" took \d+\.\d{3} seconds$", message) for message in told)


def test_debug_mode_checks(loop):
    async def coroutine_function():
        return None

    loop.set_debug(True)
    for bad, message in (
        (coroutine_function, r"coroutines cannot be used with call_soon\(\)"),
        (3, r"a callable object was expected by call_soon\(\), got 3"),
    ):
        with pytest.raises(TypeError, match=message):
            loop.call_soon(bad)


def test_executor(loop):
    assert loop.run_until_complete(loop.run_in_executor(None, sum, [1, 2])) == 3


def test_names_resolve(loop):
    addresses = loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80))
    assert addresses[0][4] == ("127.0.0.1", 80)
    name = loop.run_until_complete(loop.getnameinfo(("127.0.0.1", 80), 3))
    assert name == ("127.0.0.1", "80")


def test_async_generators_are_shut_down(loop):
    ended = []

    async def generator():
        try:
            yield 1
        finally:
            ended.append("finalized")

    async def main():
        iterator = generator()
        async for _ in iterator:
            return iterator

    kept = loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert ended == ["finalized"]
    del kept


def test_dict_and_weak_references(loop):
    loop.anything = 1
    assert loop.anything == 1
    assert weakref.ref(loop)() is loop


def test_unclosed_loop_warns():
    loops = [ouroloop.new_event_loop()]

    def forget():
        loops.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        forget()


def test_failed_init_of_a_subclass_leaks_nothing():
    class Broken(ouroloop.Loop):
        def __init__(self):
            raise ValueError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(100):
            with pytest.raises(ValueError):  # noqa: PT011 - the class raises it with no text
                Broken()


def test_open_files_after_many_loops():
    import os

    def count():
        return len(os.listdir("/proc/self/fd"))

    ouroloop.run(asyncio.sleep(0.001))
    before = count()
    for _ in range(20):
        ouroloop.run(asyncio.sleep(0.001))
    assert count() == before


def test_write_to_self_wakes(loop):
    loop._write_to_self()
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    loop._write_to_self()
    assert loop.is_closed()
