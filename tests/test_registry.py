"""csrc/registry.c: current_task(), all_tasks() and the call graph see our tasks as asyncio's."""

import asyncio
import gc
import importlib
import sys
import textwrap
import threading
import weakref
from asyncio import tasks

import ouroloop
import pytest

if not ouroloop.build_info()["fast_types"]:
    pytest.skip("Task is asyncio's own here", allow_module_level=True)


def run_callbacks(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


async def wait(future):
    return await future


async def nothing():
    return None


def test_current_task(loop):
    seen = []

    def callback(*args):
        seen.append(asyncio.current_task())

    async def body(n):
        for _ in range(3):
            assert asyncio.current_task() is made[n]
            assert asyncio.current_task(loop) is made[n]
            loop.call_soon(callback)
            future = loop.create_future()
            future.add_done_callback(callback)
            loop.call_soon(future.set_result, n)
            await future
            await asyncio.sleep(0)

    made = [loop.create_task(body(n)) for n in range(5)]
    loop.run_until_complete(asyncio.wait(made))
    assert asyncio.current_task(loop) is None
    assert seen == [None] * 30


def test_current_task_between_runs(loop):
    """The last task is left in its register for a while, but not longer than the loop runs."""
    loop.create_task(nothing())
    run_callbacks(loop)
    assert asyncio.current_task(loop) is None
    loop.create_task(nothing())
    loop.stop()
    loop.run_forever()
    assert asyncio.current_task(loop) is None


@pytest.mark.parametrize("leave", ["timer", "reader", "stock task", "threadsafe", "exception"])
def test_current_task_of_what_comes_next(loop, leave, reports):
    seen = []

    def note(*args):
        seen.append(asyncio.current_task())

    async def noting():
        note()

    async def fail():
        raise ValueError

    async def main():
        if leave == "timer":
            loop.call_later(0, note)
        elif leave == "threadsafe":
            loop.call_soon_threadsafe(note)
        elif leave == "stock task":
            stock = asyncio.Task(noting(), loop=loop)
            await stock
            seen[:] = [seen[0] if seen[0] is not stock else None]
        elif leave == "exception":
            loop.set_exception_handler(lambda loop, context: note())
            loop.call_soon(lambda: 1 / 0)
        else:
            import socket

            a, b = socket.socketpair()
            with a, b:
                b.send(b"x")
                loop.add_reader(a, note)
                await asyncio.sleep(0.01)
                loop.remove_reader(a)
                del seen[1:]
        await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    assert seen == [None]


def test_finished_task_is_let_go(loop):
    """It may stay in the register for a moment, not while the loop waits."""
    references = []

    async def body():
        references.append(weakref.ref(asyncio.current_task()))

    loop.create_task(body())
    loop.call_later(0.005, loop.stop)
    loop.run_forever()
    (reference,) = references
    assert reference() is None


def test_all_tasks(loop):
    async def main():
        me = asyncio.current_task()
        assert asyncio.all_tasks() == {me}
        mixed = [
            asyncio.create_task(wait(future)),
            asyncio.Task(wait(future), loop=loop),
        ]
        if sys.version_info < (3, 14):
            # Newer ones are in a register of their own.
            mixed.append(tasks._PyTask(wait(future), loop=loop))
        assert asyncio.all_tasks() == {me, *mixed}
        await asyncio.sleep(0)
        assert asyncio.all_tasks(loop) == {me, *mixed}
        future.set_result(None)
        await asyncio.wait(mixed)
        assert asyncio.all_tasks() == {me}

    future = loop.create_future()
    loop.run_until_complete(main())
    assert asyncio.all_tasks(loop) == set()


def test_all_tasks_of_each_loop(loop):
    other = ouroloop.new_event_loop()
    ours, theirs = loop.create_task(nothing()), other.create_task(nothing())
    assert asyncio.all_tasks(loop) == {ours}
    assert asyncio.all_tasks(other) == {theirs}
    loop.run_until_complete(ours)
    other.run_until_complete(theirs)
    other.close()


def test_all_tasks_while_tasks_die(loop):
    """Listing allocates, which may collect garbage, and garbage may be tasks of the list."""
    loop.set_exception_handler(lambda loop, context: None)
    threshold = gc.get_threshold()
    kept = [loop.create_task(nothing()) for _ in range(50)]
    gc.set_threshold(1)
    try:
        for _ in range(50):
            for _ in range(10):
                task = loop.create_task(wait(loop.create_future()))
            run_callbacks(loop)
            del task
            assert all(not task.done() for task in asyncio.all_tasks(loop))
    finally:
        gc.set_threshold(*threshold)
    del kept
    gc.collect()
    assert asyncio.all_tasks(loop) == set()


def test_all_tasks_across_threads():
    """Each thread lists the tasks of its loop while the others make and end theirs."""
    problems = []

    def work():
        async def main():
            for _ in range(100):
                made = {asyncio.create_task(asyncio.sleep(0)) for _ in range(10)}
                listed = asyncio.all_tasks()
                if listed != made | {asyncio.current_task()}:
                    problems.append(listed)
                await asyncio.wait(made)

        ouroloop.run(main())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_task_made_by_another_thread(loop):
    made = []
    thread = threading.Thread(target=lambda: made.append(loop.create_task(nothing())))
    thread.start()
    thread.join()
    assert asyncio.all_tasks(loop) == set(made)
    loop.run_until_complete(made[0])
    assert asyncio.all_tasks(loop) == set()


def test_register_by_hand(loop):
    """asyncio's own functions for task implementations."""
    task = loop.create_task(nothing())
    tasks._unregister_task(task)
    assert asyncio.all_tasks(loop) == set()
    tasks._unregister_task(task)
    tasks._register_task(task)
    assert asyncio.all_tasks(loop) == {task}
    tasks._register_task(task)
    loop.run_until_complete(task)
    assert asyncio.all_tasks(loop) == set()


def test_enter_by_hand(loop):
    async def main():
        me = asyncio.current_task()
        other = loop.create_task(nothing())
        with pytest.raises(RuntimeError, match="Cannot enter into task"):
            tasks._enter_task(loop, other)
        tasks._leave_task(loop, me)
        assert asyncio.current_task() is None
        tasks._enter_task(loop, other)
        assert asyncio.current_task() is other
        tasks._leave_task(loop, other)
        tasks._enter_task(loop, me)
        await other
        assert asyncio.current_task() is me

    loop.run_until_complete(main())


def test_entered_by_somebody_else(loop, reports):
    """A callback that leaves a task of its own in the register: asyncio refuses the next step."""
    stranger = asyncio.Task(nothing(), loop=loop)
    future = loop.create_future()
    task = loop.create_task(wait(future))
    run_callbacks(loop)
    loop.call_soon(tasks._enter_task, loop, stranger)
    future.set_result(None)
    loop.call_soon(tasks._leave_task, loop, stranger)
    run_callbacks(loop)
    (report,) = reports.take()
    assert isinstance(report["exception"], RuntimeError)
    assert "Cannot enter into task" in str(report["exception"])
    assert not task.done()
    task._log_destroy_pending = False
    loop.run_until_complete(asyncio.sleep(0))
    del task, report
    gc.collect()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="no sets any more since 3.14")
class TestWeakSet:
    """Until 3.13 all_tasks() goes through a WeakSet."""

    @pytest.fixture
    def tasks(self):
        import _asyncio

        return _asyncio._scheduled_tasks if sys.version_info >= (3, 12) else _asyncio._all_tasks

    def test_answers(self, loop, tasks):
        before = len(tasks)
        made = [loop.create_task(nothing()) for _ in range(5)]
        stock = asyncio.Task(nothing(), loop=loop)
        assert len(tasks) == before + 6
        assert all(task in tasks for task in (*made, stock))
        assert set(made) < set(tasks)
        tasks.discard(made[0])
        assert made[0] not in tasks
        assert len(tasks) == before + 5
        tasks.add(made[0])
        assert made[0] in tasks
        loop.run_until_complete(asyncio.wait([*made, stock]))
        assert not any(task in tasks for task in made[1:])

    def test_forgets_dead_tasks(self, loop, tasks):
        task = loop.create_task(nothing())
        loop.run_until_complete(task)
        before = len(tasks)
        del task
        gc.collect()
        assert len(tasks) == before

    def test_weak_references_of_others(self, loop, tasks):
        task = loop.create_task(nothing())
        assert weakref.ref(object) not in tasks.data
        assert 5 not in tasks.data
        tasks.data.discard(5)
        with pytest.raises(TypeError):
            tasks.data.discard([])
        copy = tasks.copy()
        assert task in copy
        assert set(tasks) == set(copy)
        loop.run_until_complete(task)


def test_two_copies_of_the_module():
    """As after a reload: the tasks of both are listed."""
    names = [name for name in sys.modules if name.partition(".")[0] == "ouroloop"]
    saved = {name: sys.modules.pop(name) for name in names}
    try:
        again = importlib.import_module("ouroloop")
        assert again.Task is not ouroloop.Task
        first, second = ouroloop.new_event_loop(), again.new_event_loop()
        ours, theirs = first.create_task(nothing()), second.create_task(nothing())
        assert type(theirs) is again.Task
        assert asyncio.all_tasks(first) == {ours}
        assert asyncio.all_tasks(second) == {theirs}
        crossed = ouroloop.Task(wait(again.Future(loop=second)), loop=second)
        run_callbacks(second)
        crossed._fut_waiter.set_result(5)
        assert second.run_until_complete(crossed) == 5
        first.run_until_complete(ours)
        first.close()
        second.close()
        del ours, theirs, crossed, first, second, again
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "ouroloop"]:
            del sys.modules[name]
        sys.modules.update(saved)
    gc.collect()
    loop = ouroloop.new_event_loop()
    task = loop.create_task(nothing())
    assert asyncio.all_tasks(loop) == {task}
    loop.run_until_complete(task)
    loop.close()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="the call graph came with 3.14")
class TestAwaitedBy:
    def test_edges(self, loop):
        async def main():
            waiters = [Task(wait(future), loop=loop) for Task in (ouroloop.Task, asyncio.Task) * 2]
            assert future._asyncio_awaited_by is None
            await asyncio.sleep(0)
            assert future._asyncio_awaited_by == frozenset(waiters)
            waiters[0].cancel()
            await asyncio.sleep(0)
            await asyncio.wait(waiters)
            assert not future._asyncio_awaited_by

        future = loop.create_future()
        loop.run_until_complete(main())

    @pytest.mark.parametrize("end", ["set_result", "cancel", "cancel task"])
    @pytest.mark.parametrize("Task", [ouroloop.Task, asyncio.Task])
    @pytest.mark.parametrize("Future", [ouroloop.Future, asyncio.Future])
    def test_edge_goes(self, loop, Task, Future, end):
        async def main():
            future = Future(loop=loop)
            task = Task(wait(future), loop=loop)
            await asyncio.sleep(0)
            assert future._asyncio_awaited_by == {task}
            if end == "set_result":
                future.set_result(None)
            elif end == "cancel":
                future.cancel()
            else:
                task.cancel()
            await asyncio.wait([task])
            assert future._asyncio_awaited_by is None

        loop.run_until_complete(main())

    def test_gather_shield_and_groups(self, loop):
        async def leaf():
            return {task.get_name() for task in asyncio.current_task()._asyncio_awaited_by}

        async def main():
            asyncio.current_task().set_name("main")
            (gathered,) = await asyncio.gather(leaf())
            shielded = await asyncio.shield(leaf())
            async with asyncio.TaskGroup() as group:
                grouped = group.create_task(leaf())
            return gathered, shielded, grouped.result()

        assert loop.run_until_complete(main()) == ({"main"}, {"main"}, {"main"})

    def test_call_graph(self, loop):
        async def leaf():
            return asyncio.format_call_graph()

        async def branch():
            return await loop.create_task(leaf(), name="the leaf")

        text = loop.run_until_complete(loop.create_task(branch(), name="the branch"))
        assert "Task(name='the leaf'" in text
        assert "Awaited by:" in text
        assert "Task(name='the branch'" in text


SCRIPT = textwrap.dedent("""
    import asyncio, gc, sys, weakref
    import ouroloop

    async def give(n):
        await asyncio.sleep(0)
        assert asyncio.current_task() in asyncio.all_tasks()
        return n

    async def main():
        loop = asyncio.get_running_loop()
        me = asyncio.current_task()
        tasks = [asyncio.create_task(give(n)) for n in range(10)]
        assert asyncio.all_tasks() == {me, *tasks}
        seen = []
        loop.call_soon(lambda: seen.append(asyncio.current_task()))
        future = loop.create_future()
        loop.call_soon(future.set_result, 5)
        assert await future == 5
        assert asyncio.current_task() is me
        assert await asyncio.gather(*tasks) == list(range(10))
        assert await asyncio.wait_for(asyncio.Task(give(1), loop=loop), 1) == 1
        assert seen == [None]
        del tasks
        gc.collect()
        return len(asyncio.all_tasks())

    assert ouroloop.run(main()) == 1
    print(ouroloop._core.REGISTERS, ouroloop.build_info()["fast_types"])
""")


@pytest.mark.parametrize("mode", ["", "calls"])
def test_registers(run_python, mode):
    """Also through asyncio's functions alone, should it keep its registers elsewhere one day."""
    done = run_python(["-c", SCRIPT], env={"OUROLOOP_REGISTERS": mode})
    assert done.stdout.split() == [mode or "native", "True"]
