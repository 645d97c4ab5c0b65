"""Put a loop, its Future and its Task where the interpreter's own asyncio tests look for them.

Installed before any test module is imported: its classes read `tasks._CTask` as they are defined.
"""

import asyncio
import collections
import sys
from asyncio import futures, selector_events, tasks, unix_events

StockTask = tasks._CTask
StockFuture = futures._CFuture

# Classes which exist once per selector; one generated class stands for all of them.
PER_SELECTOR_CLASSES = (
    "EPollEventLoopTests",
    "KqueueEventLoopTests",
    "PollEventLoopTests",
    "SelectEventLoopTests",
)


class Swap:
    """The loop under test, counting what the tests make."""

    def __init__(self, loop_name, types):
        self.loop_name = loop_name
        self.loops = collections.Counter()
        self.futures = collections.Counter()
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
        self._count_loops()

    def _count_loops(self):
        original_init = self.Loop.__init__
        counts, future_counts = self.loops, self.futures

        def __init__(loop, *args, **kwargs):
            original_init(loop, *args, **kwargs)
            counts[type_name(type(loop))] += 1
            future_counts[type_name(type(loop.create_future()))] += 1

        # On the class itself: a counting subclass would not be the type under test.
        self.Loop.__init__ = __init__

    def install(self):
        """Make every public way to a loop, a Task or a Future lead to ours."""
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
        if self.Task is not StockTask:
            tasks._CTask, futures._CFuture = self.Task, self.Future
            asyncio.Task, asyncio.Future = self.Task, self.Future

    def adapt(self, module):
        """Replace the classes that test one selector each by one class for the loop under test."""
        if self.Future is not StockFuture:
            # The suite's loop with a clock of its own; tests compare its futures to asyncio.Future.
            from test.test_asyncio import utils

            utils.TestLoop.create_future = lambda loop: self.Future(loop=loop)
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

    def tasks_made(self):
        """How many tasks took a default name, by type: each type's next default name tells."""
        made = {
            type_name(StockTask): next_number(selector_events.BaseSelectorEventLoop(), StockTask)
        }
        if self.Task is not StockTask:
            made[type_name(self.Task)] = next_number(self.new_event_loop(), self.Task)
        return made


def next_number(loop, Task):
    async def nothing():
        return None

    task = Task(nothing(), loop=loop)
    loop.run_until_complete(task)
    loop.close()
    return int(task.get_name().rpartition("-")[2]) - 1


def type_name(cls):
    return f"{cls.__module__}.{cls.__qualname__}"
