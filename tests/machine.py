"""A machine that runs a program of programs.py on a loop and writes down all that happens.

Time in a program is the number of the loop's turn, so that deadlines are equal when they look equal
and nothing sleeps. Three ways to drive the loop:

ready   the loop's own clock and run_until_complete(); every delay is zero or less
ticks   the same, while a callback in each turn moves the clock
turns   run_forever() for one turn after the other: a descriptor that is always readable ends each,
        also when nothing else is to be done. So every turn polls, as asyncio's do.
"""

import asyncio
import contextvars
import gc
import itertools
import logging
import re
import selectors
import socket
import sys
import warnings

from programs import FUTURES
from statements import Statements, error_words, variable, words
from statements_io import ConnectedStatements

ROUNDS = 40
PATIENCE = 100
MOST_TURNS = 3000
MOST_EXITS = 30
START = 1000.0


class Endless(KeyboardInterrupt):
    """The program goes on for ever. No other exception would leave the loop."""


class LogHandler(logging.Handler):
    def __init__(self, machine):
        super().__init__(logging.WARNING)
        self.machine = machine

    def emit(self, record):
        self.machine.note("log", record.levelname, words(record.getMessage()))


class ChosenOrder(selectors.EpollSelector):
    """Gives what is ready in a chosen order, of the many that the kernel may give it in.

    choices: for each poll that finds several descriptors, which permutation of them. polls: for
    each, how long the trace was then and how many permutations there were.
    """

    def __init__(self, choices):
        super().__init__()
        self.choices = list(choices)
        self.polls = []
        self.machine = None

    def select(self, timeout=None):
        found = super().select(timeout)
        bell = self.machine and self.machine.bell
        rest = [event for event in found if event[0].fileobj == bell]
        found = [event for event in found if event[0].fileobj != bell]
        if len(found) > 1:
            orders = list(itertools.permutations(found))
            choice = self.choices[len(self.polls)] if len(self.polls) < len(self.choices) else 0
            self.polls.append((len(self.machine.trace), len(orders)))
            found = orders[choice]
        return [*found, *rest]


class Machine(Statements, ConnectedStatements):
    """Runs one program on one loop."""

    def __init__(self, program, loop):
        self.program = program
        self.loop = loop
        self.trace = []
        self.tasks = []
        self.handles = []
        self.late_reports = []
        self.clock = START
        self.bell = None
        if isinstance(getattr(loop, "_selector", None), ChosenOrder):
            loop._selector.machine = self
        self.virtual = program["drive"] != "ready"
        if self.virtual:
            loop.time = lambda: self.clock
        loop.set_exception_handler(self.on_report)
        loop.set_debug(program["debug"])
        loop.slow_callback_duration = 1e9
        if program["eager"]:
            loop.set_task_factory(asyncio.eager_task_factory)

    def run(self):
        """The trace: what happened, in order, and then what the garbage collector reported."""
        unraisable, sys.unraisablehook = sys.unraisablehook, self.on_unraisable
        logger, handler = logging.getLogger("asyncio"), LogHandler(self)
        logger.addHandler(handler)
        try:
            self.drive()
            self.end()
            self.loop.close()
            del self.tasks[:], self.handles[:]
            kept = ("trace", "late_reports", "clock", "virtual")
            self.__dict__ = {key: self.__dict__[key] for key in kept} | {"loop": None}
            gc.collect()
        finally:
            logger.removeHandler(handler)
            sys.unraisablehook = unraisable
        # When garbage is found is no part of asyncio's order, what is reported is.
        return [*self.trace, *sorted(self.late_reports, key=str)]

    # --- driving

    def drive(self):
        drive = getattr(self, f"drive_{self.program['drive']}")
        self.main_task = self.loop.create_task(self.main())
        self.main_task.set_name("main")
        while not self.main_task.done():
            try:
                drive()
            except Endless:
                raise
            except (RuntimeError, SystemExit, KeyboardInterrupt) as error:
                self.note("left the loop", error_words(error))
            self.next_turn()

    def drive_ready(self):
        self.loop.run_until_complete(self.main_task)

    def drive_ticks(self):
        self.ticker = self.loop.call_soon(self.tick)
        try:
            self.loop.run_until_complete(self.main_task)
        finally:
            self.ticker.cancel()

    def tick(self):
        self.next_turn()
        self.ticker = self.loop.call_soon(self.tick)

    def next_turn(self):
        self.clock += 1
        if self.clock > START + MOST_TURNS:
            raise Endless

    def drive_turns(self):
        bell, ringer = socket.socketpair()
        with bell, ringer:
            ringer.send(b"x")
            self.loop.add_reader(bell, self.loop.stop)
            self.bell = bell.fileno()
            try:
                while not self.main_task.done():
                    self.next_turn()
                    self.loop.run_forever()
            finally:
                self.loop.remove_reader(bell)

    def end(self):
        if not self.main_task.cancelled() and self.main_task.exception() is not None:
            raise self.main_task.exception()
        self.loop.call_soon(self.note, "callback", "after main")
        self.loop.call_soon(self.loop.stop)
        self.run_again(self.loop.run_forever)
        self.loop.set_task_factory(None)
        self.run_again(lambda: self.loop.run_until_complete(self.loop.shutdown_asyncgens()))

    def run_again(self, run):
        """Until nothing leaves the loop any more."""
        for _ in range(MOST_EXITS):
            try:
                return run()
            except (SystemExit, KeyboardInterrupt) as error:
                self.note("left the loop", error_words(error))
        raise Endless

    # --- writing down

    def note(self, *what):
        turn = int(self.clock - START) if self.virtual else 0
        event = (turn, *what, variable.get())
        (self.late_reports if self.loop is None else self.trace).append(event)

    def on_report(self, loop, context):
        known = [
            (key, error_words(value) if key == "exception" else self.part(key, value))
            for key, value in sorted(context.items())
            if key != "message"
        ]
        message = words(context["message"])
        if "never retrieved" in message or "destroyed" in message:
            # Nor is it whether the coroutine or its task is found first.
            known = re.sub(r"coro=<[^>]*>", "coro=", str(known))
            self.late_reports.append(("report", message, known))
        else:
            self.note("report", message, known)

    @staticmethod
    def part(key, value):
        if key in ("source_traceback", "handle_traceback"):
            return "a traceback"
        if isinstance(value, asyncio.Transport):
            return "a transport"
        return words(value)

    def on_unraisable(self, unraisable):
        self.late_reports.append(("unraisable", repr(unraisable.exc_value)))

    def states(self):
        return [self.outcome(x) for x in (*self.futures, *self.tasks)]

    @staticmethod
    def outcome(future):
        if not future.done():
            return "pending"
        if future.cancelled():
            return "cancelled"
        if future.exception() is not None:
            return str(error_words(future.exception()))
        return f"result {words(future.result())}"

    # --- what the statements work on

    async def main(self):
        loop = self.loop
        self.begin = loop.time()
        self.futures = [loop.create_future() for _ in range(FUTURES)]
        self.event = asyncio.Event()
        self.queue = asyncio.Queue(2)
        self.priority_queue = asyncio.PriorityQueue(3)
        self.lock = asyncio.Lock()
        self.semaphore = asyncio.Semaphore(2)
        self.bounded_semaphore = asyncio.BoundedSemaphore(1)
        self.condition = asyncio.Condition()
        self.predicate = 0
        self.kept = None
        if sys.version_info >= (3, 11):
            self.barrier = asyncio.Barrier(2)
        for kind in self.program["connected"]:
            await getattr(self, f"open_{kind}")()
        for number, body in enumerate(self.program["tasks"]):
            try:
                self.spawn(f"t{number}", body)
            except SystemExit as error:
                # Of a task that started eagerly: it would end this one.
                self.note("main", error_words(error))
        await self.wait_turns(ROUNDS)
        self.note("end of the free rounds", self.states())
        # What still waits is cancelled until it gives up.
        for _ in range(PATIENCE):
            pending = [task for task in self.tasks if not task.done()]
            if not pending:
                break
            for task in pending:
                task.cancel()
            await self.wait_turns(4)
        self.note("end", self.states())
        assert not pending, "the program does not end"
        for kind in self.program["connected"]:
            await getattr(self, f"close_{kind}")()
        self.note("left", len(asyncio.all_tasks()))

    async def wait_turns(self, count):
        if self.program["drive"] == "turns":
            await asyncio.sleep(count)
            return
        for _ in range(count):
            await asyncio.sleep(0)

    def turns(self, n):
        """A delay of a few turns."""
        return n % 6 if self.virtual else 0

    def spawn(self, name, body, create=None, **options):
        task = (create or self.loop.create_task)(self.body(name, body), **options)
        task.set_name(name)
        self.tasks.append(task)
        self.note("spawned", name)
        return task

    def children(self, name, bodies):
        return [self.spawn(f"{name}.{n}", body) for n, body in enumerate(bodies)]

    def target(self, number):
        return self.tasks[number % len(self.tasks)] if self.tasks else self.futures[0]

    def handle(self, number):
        return self.handles[number % len(self.handles)] if self.handles else None

    def callback(self, name):
        def called(*args):
            self.note("callback", name, [self.outcome(arg) for arg in args])

        return called

    def failing(self, name, error):
        def called(*args):
            self.note("callback", name, "fails")
            raise error

        return called

    async def body(self, name, statements):
        self.note(name, "begins")
        try:
            for number, (what, *args) in enumerate(statements):
                result = await getattr(self, f"do_{what}")(f"{name}:{number}", *args)
                self.note(name, number, what, result)
            return name
        except BaseException as error:
            self.note(name, "ends with", error_words(error))
            raise
        finally:
            self.note(name, "ends")


def run(program, new_event_loop):
    """The trace of a program on a new loop."""
    with warnings.catch_warnings():
        # Of what the program leaves open; they come when garbage is found.
        warnings.simplefilter("ignore")
        context = contextvars.Context()
        return context.run(lambda: Machine(program, new_event_loop()).run())


def same_in_other_order(program, found, tries=300):
    """Does asyncio do this when the kernel tells in another order which descriptors are ready?

    The order of those that one poll finds is nobody's to promise; it depends on when each was
    registered. found: a trace.
    """
    waiting = [[]]
    while waiting and tries > 0:
        tries -= 1
        selector = ChosenOrder(waiting.pop())
        trace = run(program, lambda selector=selector: asyncio.SelectorEventLoop(selector))
        if trace == found:
            return True
        differs = next(
            (n for n, (a, b) in enumerate(zip(trace, found, strict=False)) if a != b),
            min(len(trace), len(found)),
        )
        # Those shortly before the difference come first.
        for index in range(len(selector.choices), len(selector.polls)):
            position, orders = selector.polls[index]
            if position <= differs:
                zeros = [0] * (index - len(selector.choices))
                waiting += [[*selector.choices, *zeros, n] for n in range(1, orders)]
    return False
