"""Put a loop, its Future and its Task where the interpreter's own asyncio tests look for them.

Installed before any test module is imported: its classes read `tasks._CTask` as they are defined.
"""

import asyncio
import os
import sys
from asyncio import futures, tasks, unix_events

from counting import Made

StockTask = tasks._CTask
StockFuture = futures._CFuture

# Classes which exist once per selector; one generated class stands for all of them.
PER_SELECTOR_CLASSES = (
    "EPollEventLoopTests",
    "KqueueEventLoopTests",
    "PollEventLoopTests",
    "SelectEventLoopTests",
)

HERE = os.path.dirname(os.path.abspath(__file__))
# For the programs that tests start: see children/sitecustomize.py.
VARIABLE = "OUROLOOP_TEST_SWAP"


class Swap:
    """The loop under test, counting what the tests make."""

    def __init__(self, loop_name, types, path=None):
        """`path`: where to count instead of in `made`, as in counting.Made."""
        self.loop_name, self.types = loop_name, types
        self.made = Made(path)
        self.Task, self.Future = StockTask, StockFuture
        if loop_name == "asyncio":
            self.Loop = asyncio.SelectorEventLoop
            self.new_event_loop = asyncio.SelectorEventLoop
        elif loop_name == "uvloop":
            import uvloop

            self.Loop = uvloop.Loop
            self.new_event_loop = uvloop.new_event_loop
        elif loop_name == "ouroloop":
            import ouroloop

            self.Loop = ouroloop.Loop
            self.new_event_loop = ouroloop.new_event_loop
            if types == "own":
                self.Task, self.Future = ouroloop.Task, ouroloop.Future
        else:
            raise SystemExit(f"unknown loop {loop_name!r}")

    def install(self):
        """Make every public way to a loop, a Task or a Future lead to ours; count from now on."""
        self.made.watch_loops()
        self.made.watch_python_types()
        self.made.watch_calls(*{StockTask, StockFuture, self.Task, self.Future})
        if self.Future is not StockFuture:
            self.made.watch_method(self.Loop.create_future)
        self.install_loop()
        self.install_types()

    def install_loop(self):
        for name in ("_UnixDefaultEventLoopPolicy", "_DefaultEventLoopPolicy"):
            policy = getattr(unix_events, name, None)
            if policy is not None:
                policy._loop_factory = staticmethod(self.new_event_loop)
        if self.loop_name != "asyncio":
            asyncio.SelectorEventLoop = self.Loop
            if sys.version_info >= (3, 13):
                asyncio.EventLoop = self.Loop
            # Tests that build a bare BaseEventLoop replace its selector by a mock and then run it.
            asyncio.BaseEventLoop = self.Loop

    def install_types(self):
        if self.Task is not StockTask:
            asyncio.Task = tasks.Task = tasks._CTask = self.Task
            asyncio.Future = futures.Future = futures._CFuture = self.Future
            if hasattr(tasks, "eager_task_factory"):
                factory = tasks.create_eager_task_factory(self.Task)
                asyncio.eager_task_factory = tasks.eager_task_factory = factory

    def install_in_children(self, path):
        """Have Python programs that are started from now on do the same, counting in a file."""
        os.environ[VARIABLE] = f"{self.loop_name} {self.types} {path}"
        ways = [os.path.join(HERE, "children"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, ways))

    def adapt(self, module):
        """Replace the classes that test one selector each by one class for the loop under test."""
        bases = None
        for name in PER_SELECTOR_CLASSES:
            cls = module.__dict__.pop(name, None)
            if cls is not None:
                bases = cls.__bases__
        if bases is not None:

            def create_event_loop(self, new_event_loop=self.new_event_loop):
                return new_event_loop()

            body = {"create_event_loop": create_event_loop, "__module__": module.__name__}
            module.EventLoopTests = type("EventLoopTests", bases, body)

    def count(self):
        """What was made, as a dict of (kind, type): number."""
        made = dict(self.made.counts)
        if self.Task is not StockTask:
            # Our loop makes tasks without calling their type, and each takes its number as a name.
            loop = self.new_event_loop()
            task = loop.create_task(asyncio.sleep(0))
            loop.run_until_complete(task)
            loop.close()
            made["tasks", "ouroloop.Task"] = int(task.get_name().rpartition("-")[2]) - 1
        return made
