"""csrc/proof.c: the layout of asyncio's objects is proved at import, or its own types are used."""

import asyncio
import sys
import textwrap

import ouroloop
import pytest
from ouroloop import _core

LAYOUTS = {
    (3, 10): "3.10",
    (3, 11): "3.11-3.12",
    (3, 12): "3.11-3.12",
    (3, 13): "3.13",
    (3, 14): "3.14-3.15",
    (3, 15): "3.14-3.15",
}

PROGRAM = textwrap.dedent("""
    import asyncio
    import ouroloop
    from ouroloop import _core

    async def give(n):
        await asyncio.sleep(0)
        return n

    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        task = asyncio.create_task(give(1), name="named")
        assert type(future) is ouroloop.Future, type(future)
        assert type(task) is ouroloop.Task, type(task)
        assert type(asyncio.current_task()) is ouroloop.Task
        assert task.get_name() == "named"
        assert await task == 1
        loop.call_later(0.001, future.set_result, 2)
        assert await future == 2
        assert await asyncio.gather(give(3), asyncio.sleep(0.001, 4)) == [3, 4]
        try:
            await asyncio.wait_for(loop.create_future(), 0.001)
        except asyncio.TimeoutError:
            pass
        failing = asyncio.create_task(give(1 / 1), **CONTEXT)
        await failing
        reader, writer = await connected()
        writer.write(b"hello\\n")
        assert await reader.readline() == b"hello\\n"
        writer.close()
        return "done"

    async def connected():
        async def echo(reader, writer):
            writer.write(await reader.readline())
            writer.close()
            server.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        return await asyncio.open_connection(*server.sockets[0].getsockname())

    import contextvars, sys
    CONTEXT = {"context": contextvars.copy_context()} if sys.version_info >= (3, 11) else {}
    assert ouroloop.run(main()) == "done"
    info = ouroloop.build_info()
    print(info["fast_types"], info["layout"], ouroloop.Task is asyncio.Task,
          ouroloop.Future is asyncio.Future, repr(_core.STOCK_TYPES_REASON))
""")


def test_layout_fits():
    """On every version that is tested, own types are used; a vendor's Python may differ."""
    info = ouroloop.build_info()
    if sys.version_info[:2] in LAYOUTS and not getattr(sys.flags, "gil", 1) == 0:
        assert info["fast_types"] is True
        assert info["layout"] == LAYOUTS[sys.version_info[:2]]
        assert _core.STOCK_TYPES_REASON == ""
        assert _core.REGISTERS == "native"


def test_sizes():
    """Own fields of a task cost two pointers at most, and those of a future nothing."""
    if not _core.FAST_TYPES:
        pytest.skip("Future and Task are asyncio's own here")
    assert ouroloop.Future.__basicsize__ == asyncio.Future.__basicsize__
    extra = 0 if sys.version_info >= (3, 14) else 16
    assert ouroloop.Task.__basicsize__ == asyncio.Task.__basicsize__ + extra


def test_own_types(run_python):
    done = run_python(["-W", "error", "-c", PROGRAM])
    assert done.stdout.split() == ["True", ouroloop.build_info()["layout"], "False", "False", "''"]
    assert done.stderr == ""


@pytest.mark.parametrize("options", [(), ("-X", "dev")])
def test_fallback_on_request(run_python, options):
    done = run_python([*options, "-c", PROGRAM], env={"OUROLOOP_STOCK_TYPES": "1"})
    expected = ["False", "none", "True", "True", "'OUROLOOP_STOCK_TYPES'"]
    assert done.stdout.split() == expected
    assert done.stderr == ""


def test_fallback_runs_the_tests_of_asyncio(run_python):
    """A short walk through the fallback, with tasks that are cancelled, eager, named, destroyed."""
    script = textwrap.dedent("""
        import asyncio, gc, sys
        import ouroloop

        async def main():
            loop = asyncio.get_running_loop()
            task = asyncio.create_task(asyncio.sleep(10))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            if sys.version_info >= (3, 12):
                loop.set_task_factory(asyncio.eager_task_factory)
                assert await asyncio.create_task(asyncio.sleep(0, 5)) == 5
                loop.set_task_factory(None)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        ouroloop.run(main(), debug=True)
        print("ok")
    """)
    done = run_python(["-c", script], env={"OUROLOOP_STOCK_TYPES": "1"})
    assert (done.stdout, done.stderr) == ("ok\n", "")


OTHER_TYPES = {
    "patched": """
        # As some programs do, to nest loops.
        import asyncio
        asyncio.Future = asyncio.futures.Future = asyncio.futures._PyFuture
        asyncio.Task = asyncio.tasks.Task = asyncio.tasks._PyTask
    """,
    "subclassed": """
        import _asyncio
        import asyncio
        class Task(_asyncio.Task):
            pass
        _asyncio.Task = asyncio.Task = asyncio.tasks.Task = Task
    """,
}


@pytest.mark.parametrize("change", OTHER_TYPES)
def test_other_types(run_python, change):
    if change == "patched" and sys.version_info >= (3, 14):
        pytest.skip("asyncio.current_task() does not know tasks in Python any more")
    program = textwrap.dedent(OTHER_TYPES[change]) + PROGRAM
    if change == "subclassed":
        program = program.replace("import _asyncio\nimport asyncio", "import asyncio, _asyncio")
    done = run_python(["-c", program])
    assert done.stdout.split(maxsplit=4) == [
        "False",
        "none",
        "True",
        "True",
        "'asyncio does not use its C types'\n",
    ]


@pytest.mark.parametrize("type_name", ["Future", "Task"])
def test_other_layout(run_python, type_name):
    """As in a patch release that added a field."""
    change = f"""
        import ctypes
        import asyncio
        class Type(ctypes.Structure):
            _fields_ = [("head", ctypes.c_void_p * 4), ("basicsize", ctypes.c_ssize_t)]
        changed = Type.from_address(id(asyncio.{type_name}))
        assert changed.basicsize == asyncio.{type_name}.__basicsize__
        changed.basicsize += 16
    """
    done = run_python(["-c", textwrap.dedent(change) + PROGRAM])
    assert done.stdout.split() == ["False", "none", "True", "True", "'size'"]


def test_import_leaves_no_trace(run_python):
    """The probes are gone: no task, no running loop, no warning, no garbage."""
    script = textwrap.dedent("""
        import asyncio, gc
        from asyncio import events

        before = [type(made).__name__ for made in gc.get_objects()].count("Task")
        import ouroloop
        assert events._get_running_loop() is None
        gc.collect()
        after = [type(made).__name__ for made in gc.get_objects()]
        assert after.count("Task") == before, after.count("Task")
        assert "Probe" not in after
        assert gc.garbage == []
    """)
    done = run_python(["-W", "error", "-X", "dev", "-c", script])
    assert done.stderr == ""


@pytest.mark.parametrize("debug", [False, True])
def test_import_inside_of_a_task(run_python, debug):
    """The proof needs to be the running loop for a moment, and puts all back."""
    script = textwrap.dedent(f"""
        import asyncio

        async def main():
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            import ouroloop
            assert ouroloop.build_info()["fast_types"], ouroloop._core.STOCK_TYPES_REASON
            assert ouroloop._core.REGISTERS == "native"
            assert asyncio.get_running_loop() is loop
            assert asyncio.current_task() is task
            assert asyncio.all_tasks() == {{task}}
            await asyncio.sleep(0)
            assert asyncio.current_task() is task

        asyncio.run(main(), debug={debug})
        print("ok")
    """)
    done = run_python(["-W", "error", "-c", script])
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_import_in_a_thread(run_python):
    script = textwrap.dedent("""
        import threading

        def work():
            import ouroloop
            assert ouroloop._core.REGISTERS == "native"
            assert ouroloop.build_info()["fast_types"]

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        import asyncio
        import ouroloop
        ouroloop.run(asyncio.sleep(0))
        print("ok")
    """)
    assert run_python(["-c", script]).stdout == "ok\n"
