"""The names ouroloop offers, its types' place among asyncio's, and `python -m ouroloop`."""

import asyncio
import copy
import gc
import inspect
import os
import pickle
import re
import sys
import textwrap
import types
import weakref

import ouroloop
import pytest

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def test_names():
    expected = {"Future", "Loop", "Task", "__version__", "build_info", "new_event_loop", "run"}
    if sys.version_info < (3, 16):
        expected |= {"EventLoopPolicy", "install"}
    assert set(ouroloop.__all__) == expected
    for name in expected:
        assert hasattr(ouroloop, name)
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", ouroloop.__version__)


@pytest.mark.skipif(sys.version_info < (3, 16), reason="asyncio has policies before 3.16")
def test_no_policy_from_3_16_on():
    assert not hasattr(ouroloop, "EventLoopPolicy")
    assert not hasattr(ouroloop, "install")


def test_every_public_name_says_what_it_is():
    for name in ouroloop.__all__:
        if name != "__version__":
            assert inspect.getdoc(getattr(ouroloop, name)), name
    for name, member in vars(ouroloop._core.Loop).items():
        if not name.startswith("_") and callable(member):
            assert inspect.getdoc(member), name


def test_build_info():
    info = ouroloop.build_info()
    assert info["version"] == ouroloop.__version__
    assert info["python"] == sys.version.split()[0]
    for key in ("libuv_compiled", "libuv_running"):
        assert re.fullmatch(r"1\.\d+\.\d+", info[key]), info
    assert isinstance(info["fast_types"], bool)
    assert info["fast_types"] == (ouroloop.Task is not asyncio.Task)


def test_the_fast_types_fit_this_python():
    """On the versions we build for; a fallback here means that the layout changed."""
    assert sys.version_info[:2] in ouroloop_versions()
    assert ouroloop.build_info()["fast_types"] is True, ouroloop.build_info()


def ouroloop_versions():
    return [(3, minor) for minor in range(10, 16)]


def test_types():
    assert issubclass(ouroloop.Loop, asyncio.BaseEventLoop)
    assert issubclass(ouroloop.Future, asyncio.Future)
    assert issubclass(ouroloop.Task, asyncio.Task)
    assert issubclass(ouroloop.Task, ouroloop.Future)
    loop = ouroloop.new_event_loop()
    assert type(loop) is ouroloop.Loop
    assert type(loop.create_future()) is ouroloop.Future

    async def main():
        return type(asyncio.current_task())

    assert loop.run_until_complete(main()) is ouroloop.Task
    loop.close()


@pytest.mark.parametrize("name", ["Future", "Task"])
def test_generic_alias(name):
    ours, stock = getattr(ouroloop, name), getattr(asyncio, name)
    assert isinstance(ours[int], types.GenericAlias)
    assert ours[int].__args__ == stock[int].__args__ == (int,)


@pytest.mark.parametrize("name", ["Future", "Task"])
def test_public_names_are_asyncios(name):
    ours, stock = getattr(ouroloop, name), getattr(asyncio, name)

    def public(cls):
        return [attribute for attribute in dir(cls) if not attribute.startswith("_")]

    assert public(ours) == public(stock)


def public_methods(cls):
    return {n for n in dir(cls) if not n.startswith("_") and callable(getattr(cls, n))}


def test_the_loop_has_every_method_of_asyncios():
    missing = public_methods(asyncio.SelectorEventLoop) - public_methods(ouroloop.Loop)
    assert not missing


def signatures_of_the_loop():
    for name in sorted(public_methods(asyncio.SelectorEventLoop)):
        try:
            stock = inspect.signature(getattr(asyncio.SelectorEventLoop, name))
        except ValueError:  # a C method without a signature
            continue
        yield name, stock


@pytest.mark.parametrize(
    ("name", "stock"), list(signatures_of_the_loop()), ids=lambda v: str(v)[:30]
)
def test_signatures_are_asyncios(name, stock):
    """Names, kinds and defaults of the parameters: what a caller may write."""
    ours = inspect.signature(getattr(ouroloop.Loop, name))

    def parameters(signature):
        return [
            (p.name, p.kind, p.default)
            for p in signature.parameters.values()
            if p.kind is not p.POSITIONAL_ONLY or p.name != "self"
        ]

    kept = [entry for entry in parameters(ours) if entry[0] != "self"]
    assert kept == [entry for entry in parameters(stock) if entry[0] != "self"]


def test_every_method_that_a_stock_loop_has_is_implemented(loop):
    """None of them is the abstract class's, which raises NotImplementedError."""
    for name in public_methods(asyncio.AbstractEventLoop):
        stock = inspect.getattr_static(asyncio.SelectorEventLoop, name)
        abstract = inspect.getattr_static(asyncio.AbstractEventLoop, name)
        if stock is not abstract:
            assert inspect.getattr_static(type(loop), name) is not abstract, name


def test_subclasses():
    class Loop(ouroloop.Loop):
        def __init__(self, label):
            super().__init__()
            self.label = label

    class Future(ouroloop.Future):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.extra = []

    class Task(ouroloop.Task):
        __slots__ = ("extra",)

    loop = Loop("mine")

    async def main():
        future = Future()
        asyncio.get_running_loop().call_soon(future.set_result, 5)
        future.extra.append(await future)
        return future.extra

    task = Task(main(), loop=loop)
    task.extra = 1
    assert loop.run_until_complete(task) == [5]
    assert loop.label == "mine"
    loop.close()


def test_weak_references_and_collection():
    loop = ouroloop.new_event_loop()
    objects = [loop, loop.create_future(), loop.call_soon(print), loop.call_later(9, print)]
    references = [weakref.ref(item) for item in objects]
    objects[1].circle = objects
    loop.close()
    del loop, objects
    gc.collect()
    assert [reference() for reference in references] == [None] * 4


@pytest.mark.parametrize("copier", [copy.copy, pickle.dumps], ids=["copy", "pickle"])
def test_futures_cannot_be_copied(loop, copier):
    def outcome(future):
        try:
            copier(future)
        except TypeError as error:
            return re.sub(r"'[\w.]+'", "NAME", str(error))
        return "copied"

    stock = asyncio.SelectorEventLoop()
    assert outcome(loop.create_future()) == outcome(stock.create_future())
    stock.close()


# --- python -m ouroloop, compared with plain python

PROGRAMS = {
    "loop": "import asyncio\nasync def main(): print(1)\nasyncio.run(main())",
    "argv": "import sys; print(sys.argv)",
    "main": "print(__name__, __file__, __spec__, __package__, __builtins__.__name__, __doc__)",
    "globals": "print(sorted(n for n in globals() if n != '__annotations__'))",
    "main_module": "import __main__; x = 5; print(__main__.x, __main__.__file__)",
    "path": "import sys; print(sys.path[0])",
    "exit": "import sys; sys.exit(3)",
    "exit_text": "import sys; sys.exit('sorry')",
    "exit_none": "raise SystemExit",
    "error": "def f():\n    1 / 0\nf()",
    "error_in_task": "import asyncio\nasync def main(): 1 / 0\nasyncio.run(main())",
    "interrupt": "raise KeyboardInterrupt",
    "syntax": "def f(:\n  pass",
    "future_import": "from __future__ import annotations\ndef f(x: y): 0\nprint(f.__annotations__)",
    "no_future_import": "def f(x: int): pass\nprint(f.__annotations__)",
    "atexit": "import atexit; atexit.register(print, 'bye'); print('hello')",
    "excepthook": "import sys\nsys.excepthook = lambda *a: print('hook', a[0].__name__)\n1 / 0",
    "pickle": "import pickle\nclass C: pass\nprint(type(pickle.loads(pickle.dumps(C()))))",
    "encoding": "# -*- coding: latin-1 -*-\nprint('\xe4'.encode('utf-8'))",
}


def run_both(run_python, arguments, cwd):
    """The outcome of plain python and of `python -m ouroloop` for the same arguments."""
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(cwd)]))
    runs = []
    for first in ([], ["-m", "ouroloop"]):
        done = run_python([*first, *arguments], check=False, cwd=cwd, env={"PYTHONPATH": path})
        runs.append((done.stdout, done.stderr, done.returncode))
    return runs


@pytest.mark.parametrize("name", PROGRAMS)
def test_script_runs_as_with_plain_python(name, tmp_path, run_python):
    encoding = "latin-1" if name == "encoding" else "utf-8"
    (tmp_path / "script.py").write_text(PROGRAMS[name] + "\n", encoding=encoding)
    plain, ours = run_both(run_python, ["script.py", "a", "-b", "--c"], tmp_path)
    assert ours == plain


@pytest.mark.parametrize("name", ["loop", "argv", "exit", "error", "main_module", "syntax"])
def test_module_runs_as_with_plain_python(name, tmp_path, run_python):
    (tmp_path / "some_module.py").write_text(PROGRAMS[name] + "\n")
    plain, ours = run_both(run_python, ["-m", "some_module", "a", "-b"], tmp_path)
    assert ours == plain


def test_package_runs_as_with_plain_python(tmp_path, run_python):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("print('init')\n")
    (tmp_path / "package" / "__main__.py").write_text("print(__name__, __package__)\n")
    for arguments in (["-m", "package"], ["package"]):
        plain, ours = run_both(run_python, arguments, tmp_path)
        assert ours == plain


@pytest.mark.parametrize("arguments", [["no_such_file.py"], ["-m", "no_such_module"]])
def test_missing_program(arguments, tmp_path, run_python):
    plain, ours = run_both(run_python, arguments, tmp_path)
    assert ours == plain


def test_the_program_runs_on_ouroloop(tmp_path, run_python):
    (tmp_path / "script.py").write_text(
        textwrap.dedent("""
        import asyncio, unittest

        async def main():
            return type(asyncio.get_running_loop()), type(asyncio.current_task())

        print(asyncio.run(main()))
        if hasattr(asyncio, "Runner"):
            with asyncio.Runner() as runner:
                print(runner.run(main()))
        loop = asyncio.new_event_loop()
        print(loop.run_until_complete(main()))
        loop.close()
        """)
    )
    done = run_python(["-m", "ouroloop", "script.py"], cwd=tmp_path)
    lines = done.stdout.splitlines()
    assert set(lines) == {str((ouroloop.Loop, ouroloop.Task))}
    assert len(lines) == (3 if sys.version_info >= (3, 11) else 2)
    assert done.stderr == ""


def test_help(run_python):
    done = run_python(["-m", "ouroloop", "--help"])
    assert "python -m ouroloop" in done.stdout + done.stderr
