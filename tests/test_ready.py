"""csrc/ready.c: the queue of what runs in the next turn."""

import asyncio
import gc
import weakref

import pytest


def run_turn(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_first_in_first_out_through_growth(loop):
    order = []
    for number in range(1000):
        loop.call_soon(order.append, number)
    run_turn(loop)
    assert order == list(range(1000))


def test_growth_in_the_middle_of_a_batch(loop):
    order = []

    def spread(number):
        order.append(number)
        for child in range(3):
            if number * 3 + child < 2000:
                loop.call_soon(spread, number * 3 + child + 1)

    loop.call_soon(spread, 0)
    loop.call_later(0.2, loop.stop)
    loop.run_forever()
    assert order == sorted(order)
    assert len(order) == 2001


def test_what_a_turn_queues_waits_for_the_next(loop):
    order = []

    def callback():
        order.append("callback")
        loop.call_soon(order.append, "next turn")

    loop.call_soon(callback)
    loop.call_soon(order.append, "same turn")
    run_turn(loop)
    assert order == ["callback", "same turn"]
    run_turn(loop)
    assert order[-1] == "next turn"


def test_rest_of_the_batch_survives_an_exception_that_leaves(loop):
    order = []

    def leave():
        raise SystemExit(3)

    loop.call_soon(order.append, 1)
    loop.call_soon(leave)
    loop.call_soon(order.append, 2)
    with pytest.raises(SystemExit):
        loop.run_forever()
    assert order == [1]
    run_turn(loop)
    assert order == [1, 2]


def test_close_drops_what_waits(loop):
    class Thing:
        def method(self):
            pass

    thing = Thing()
    reference = weakref.ref(thing)
    handle = loop.call_soon(thing.method)
    timer = loop.call_later(10, thing.method)
    del thing
    loop.close()
    gc.collect()
    assert reference() is None
    handle.cancel()
    timer.cancel()


def test_close_survives_finalizers_that_come_back(loop):
    class Nuisance:
        def __del__(self):
            try:
                loop.call_soon(print)
            except RuntimeError as exc:
                refusals.append(str(exc))

        def method(self):
            pass

    refusals = []
    loop.call_soon(Nuisance().method)
    loop.call_later(5, Nuisance().method)
    loop.close()
    gc.collect()
    assert refusals == ["Event loop is closed"] * 2


def test_futures_and_tasks_share_the_queue_in_order(loop):
    order = []

    async def waiter(future):
        order.append(await future)

    async def main():
        future = loop.create_future()
        task = loop.create_task(waiter(future))
        await asyncio.sleep(0)
        loop.call_soon(order.append, "before")
        future.add_done_callback(lambda _: order.append("callback"))
        future.set_result("task")
        loop.call_soon(order.append, "after")
        await task

    loop.run_until_complete(main())
    assert order == ["before", "task", "callback", "after"]
