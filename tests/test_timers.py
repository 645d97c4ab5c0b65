"""csrc/timers.c: call_later() and call_at()."""

import asyncio
import random
import time

import pytest


def run_for(loop, seconds):
    loop.call_later(seconds, loop.stop)
    loop.run_forever()


def test_never_early(loop):
    early = []

    async def main():
        for _ in range(5):
            for delay in (0.0004, 0.001, 0.0015, 0.003):
                start = time.monotonic()
                await asyncio.sleep(delay)
                early.append(time.monotonic() - start < delay)

    loop.run_until_complete(main())
    assert not any(early)


def test_when_is_the_deadline(loop):
    before = loop.time()
    timer = loop.call_later(10, print)
    assert before + 10 <= timer.when() <= loop.time() + 10
    timer.cancel()
    for when in (before + 5, int(before) + 5):
        timer = loop.call_at(when, print)
        assert timer.when() is when or timer.when() == when
        assert type(timer.when()) is type(when)
        timer.cancel()


@pytest.mark.parametrize("delay", [0, 0.0, -1, -0.5, True, -float("inf")])
def test_no_delay_is_still_a_timer(loop, delay):
    timer = loop.call_later(delay, loop.stop)
    assert isinstance(timer, asyncio.TimerHandle)
    loop.run_forever()


def test_far_and_odd_deadlines_wait(loop):
    ran = []
    timers = [
        loop.call_later(delay, ran.append, delay) for delay in (1e9, float("inf"), float("nan"))
    ]
    run_for(loop, 0.005)
    assert ran == []
    for timer in timers:
        timer.cancel()


def test_due_timers_run_before_what_callbacks_queue(loop):
    order = []

    def first():
        order.append("first")
        loop.call_soon(order.append, "queued by first")

    loop.call_later(0, order.append, "timer")
    loop.call_soon(first)
    run_for(loop, 0.001)
    assert order == ["first", "timer", "queued by first"]


def heap_order(make_loop, script):
    """The order in which timers with few distinct deadlines run, some cancelled on the way."""
    loop = make_loop()
    try:
        order = []
        base = loop.time() - 100
        timers = []
        for step, number in enumerate(script):
            if number < 0 and timers:
                timers[number % len(timers)].cancel()
            else:
                timers.append(loop.call_at(base + abs(number), order.append, step))
        loop.call_soon(loop.stop)
        loop.run_forever()
        return order
    finally:
        loop.close()


@pytest.mark.parametrize("seed", range(30))
def test_equal_deadlines_run_in_asyncios_order(seed):
    import ouroloop

    choose = random.Random(seed)
    script = [choose.randrange(-20, 6) for _ in range(choose.choice([5, 40, 400]))]
    ours = heap_order(ouroloop.new_event_loop, script)
    assert ours == heap_order(asyncio.SelectorEventLoop, script)


def test_cancelled_timers_do_not_pile_up(loop):
    import weakref

    kept = [loop.call_later(1000, print) for _ in range(10)]
    cancelled = []
    for _ in range(20):
        timers = [loop.call_later(500, print) for _ in range(200)]
        cancelled += map(weakref.ref, timers)
        while timers:
            timers.pop().cancel()
        run_for(loop, 0)
    # asyncio's rule: over 100 timers and over half of them cancelled means a sweep.
    assert sum(reference() is not None for reference in cancelled) <= 210
    for timer in kept:
        timer.cancel()


def test_weak_reference_callback_may_come_back_during_a_sweep(loop):
    import weakref

    timers = [loop.call_later(1000, print) for _ in range(300)]
    added = []
    references = [
        weakref.ref(timer, lambda _: added.append(loop.call_later(2000, print))) for timer in timers
    ]
    for timer in timers:
        timer.cancel()
    del timers, timer
    run_for(loop, 0.001)
    assert all(reference() is None for reference in references)
    assert len(added) == 300
    for timer in added:
        timer.cancel()


def test_many_waits_end(loop):
    """A deadline that passes just before the poll must not be slept over."""

    async def main():
        for step in range(300):
            await asyncio.sleep(0.00001 * (step % 7))
        return "done"

    assert loop.run_until_complete(asyncio.wait_for(main(), 10)) == "done"


def test_own_clock_is_honoured(loop):
    clock = [1000.0]
    loop.time = lambda: clock[0]
    ran = []
    timer = loop.call_later(5, ran.append, 1)
    assert timer.when() == 1005.0
    run_turn(loop)
    assert ran == []
    clock[0] = 1005.0
    run_turn(loop)
    assert ran == [1]
    del loop.time
    assert abs(loop.time() - time.monotonic()) < 1


def run_turn(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_bad_delays(loop):
    for delay in ("1", object()):
        with pytest.raises(TypeError):
            loop.call_later(delay, print)
        with pytest.raises(TypeError):
            loop.call_at(delay, print)
    with pytest.raises(TypeError):
        loop.call_later(None, print)


def test_time_is_the_monotonic_clock(loop):
    before = time.monotonic()
    now = loop.time()
    assert before <= now <= time.monotonic()
