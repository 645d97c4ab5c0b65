"""csrc/future_iter.c: what `await future` goes through, driven by hand against asyncio's."""

import asyncio
import gc
import itertools
import sys
import weakref

import ouroloop
import pytest

if not ouroloop.build_info()["fast_types"]:
    pytest.skip("Future is asyncio's own here", allow_module_level=True)


def words(function, *args):
    """What a call comes to; its exceptions with all that goes with them."""
    try:
        value = function(*args)
    except StopIteration as error:
        return "stopped", error.value
    except BaseException as error:
        return type(error).__name__, error.args
    return "future" if asyncio.isfuture(value) else value


ACTIONS = {
    "next": lambda future, iterator: next(iterator),
    "send": lambda future, iterator: iterator.send("ignored"),
    "throw": lambda future, iterator: iterator.throw(KeyError("thrown")),
    "throw type": lambda future, iterator: iterator.throw(KeyError),
    "throw junk": lambda future, iterator: iterator.throw(5),
    "throw nothing": lambda future, iterator: iterator.throw(),
    "throw instance": lambda future, iterator: iterator.throw(KeyError(1), None, None),
    "close": lambda future, iterator: iterator.close(),
    "result": lambda future, iterator: future.set_result(7),
    "none": lambda future, iterator: future.set_result(None),
    "fail": lambda future, iterator: future.set_exception(ValueError("set")),
    "cancel": lambda future, iterator: future.cancel("why"),
    "blocking": lambda future, iterator: setattr(future, "_asyncio_future_blocking", False),
}
ENDS = {"throw", "throw type", "throw junk", "throw nothing", "throw instance", "close"}


RESULTS = {"result", "none", "fail", "cancel"}
STEPS = {"next", "send"}


def is_after_the_end(actions):
    """Once it has ended, asyncio's iterator may crash (3.14) or raise SystemError."""
    done = False
    for place, name in enumerate(actions):
        if name in ENDS or (name in STEPS and done):
            return any(later in STEPS or later in ENDS for later in actions[place + 1 :])
        done = done or name in RESULTS
    return False


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", ACTIONS)
def test_same_as_asyncios(first, loop):
    for rest in itertools.product(ACTIONS, repeat=2):
        actions = (first, *rest)
        if is_after_the_end(actions):
            continue
        seen = []
        for Future in (asyncio.Future, ouroloop.Future):
            future = Future(loop=loop)
            iterator = iter(future)
            seen.append([words(ACTIONS[name], future, iterator) for name in actions])
            seen[-1].append(future._asyncio_future_blocking)
            future.cancel()
        assert seen[0] == seen[1], actions


@pytest.mark.parametrize(
    "value", [None, (), (1, 2), ValueError("a value"), StopIteration(5), [None], ValueError]
)
def test_any_object_may_be_the_result(value, loop):
    async def get(future):
        return await future

    future = loop.create_future()
    future.set_result(value)
    with pytest.raises(StopIteration) as caught:
        iter(future).send(None)
    assert caught.value.value is value
    assert loop.run_until_complete(get(future)) is value
    later = loop.create_future()
    loop.call_soon(later.set_result, value)
    assert loop.run_until_complete(get(later)) is value


def test_for_loop_over_a_done_future_is_empty(loop):
    future = loop.create_future()
    future.set_result(None)
    assert list(future) == []


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="before 3.14 it lets go of its future")
def test_ended_with_the_result(loop):
    future = loop.create_future()
    future.set_result(5)
    iterator = iter(future)
    with pytest.raises(StopIteration) as caught:
        iterator.send(None)
    assert caught.value.value == 5
    assert list(iterator) == []


def test_ended_iterator_stays_ended(loop):
    iterator = iter(loop.create_future())
    iterator.close()
    iterator.close()
    with pytest.raises(StopIteration):
        iterator.send(None)
    assert list(iterator) == []
    with pytest.raises(KeyError):
        iterator.throw(KeyError(1))


def test_yield_from(loop):
    def generator(future):
        return (yield from future)

    future = loop.create_future()
    running = generator(future)
    assert next(running) is future
    assert future._asyncio_future_blocking
    future.set_result((1, 2))
    with pytest.raises(StopIteration) as caught:
        next(running)
    assert caught.value.value == (1, 2)
    future = loop.create_future()
    running = generator(future)
    next(running)
    with pytest.raises(KeyError):
        running.throw(KeyError("thrown"))
    running = generator(future)
    running.close()


def test_cannot_be_made_by_hand(loop):
    with pytest.raises(TypeError):
        type(iter(loop.create_future()))()


def test_is_no_iterator_itself(loop):
    future = loop.create_future()
    assert not hasattr(future, "__next__")
    assert iter(future) is not iter(future)


def test_keeps_its_future(loop):
    future = loop.create_future()
    reference = weakref.ref(future)
    iterator = iter(future)
    del future
    gc.collect()
    assert next(iterator) is reference()
    iterator.close()
    assert reference() is None


def test_cycle_through_a_coroutine_is_collected(loop, reports):
    async def wait(future):
        await future

    future = loop.create_future()
    task = loop.create_task(wait(future))
    loop.call_soon(loop.stop)
    loop.run_forever()
    references = weakref.ref(future), weakref.ref(task)
    del future, task
    gc.collect()
    assert [reference() for reference in references] == [None, None] or reports
    (report,) = reports.take()
    assert report["message"] == "Task was destroyed but it is pending!"
    del report
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_many_at_once(loop):
    """More than are kept for later use."""

    async def wait(future):
        return await future

    async def main():
        futures = [loop.create_future() for _ in range(1000)]
        tasks = [asyncio.create_task(wait(future)) for future in futures]
        await asyncio.sleep(0)
        for n, future in enumerate(futures):
            future.set_result(n)
        return [await task for task in tasks]

    for _ in range(3):
        assert loop.run_until_complete(main()) == list(range(1000))
