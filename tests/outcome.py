"""Run one small function on two loops and compare how it ends, in words.

A case is a function of a new loop. What it returns or raises, what it reports to the exception
handler and what it warns of are put into lines that do not depend on which loop it was, nor on
addresses, ports and other accidents of one run.
"""

import asyncio
import functools
import gc
import re
import socket
import sys
import warnings

import ouroloop

GUARD_SECONDS = 5
# Less, so that what hangs says where.
AWAITED_SECONDS = 4


class Cases(list):
    """A list of cases, filled by decorators."""

    def one(self, function):
        self.append(function)
        return function

    def each(self, *arguments):
        """One case per argument, for a function of a loop and that argument."""

        def add(function):
            for argument in arguments:

                def bound(loop, function=function, argument=argument):
                    return function(loop, argument)

                label = getattr(argument, "__name__", None) or repr(argument)
                # The name of a test is the same in each run.
                label = re.sub(r" at 0x[0-9a-f]+", "", label)
                bound.__name__ = f"{function.__name__}[{label[:40]}]"
                self.append(bound)
            return function

        return add


class AwaitedCases(Cases):
    """Cases that are coroutine functions."""

    def awaited(self, *arguments, since=(3, 10), needs=True):
        """One case, or one for each argument; not before a version of Python, or elsewhere."""

        def add(function):
            @functools.wraps(function)
            def run(loop, *argument):
                coroutine = function(loop, *argument)
                return loop.run_until_complete(asyncio.wait_for(coroutine, AWAITED_SECONDS))

            if sys.version_info >= since and needs:
                self.each(*arguments)(run) if arguments else self.one(run)
            return function

        return add


class Outcome:
    """How a case ended, in words that do not differ between two loops that do the same."""

    def __init__(self, case, new_event_loop):
        self.reports = []
        loop = new_event_loop()
        loop.set_exception_handler(lambda loop, context: self.reports.append(self.report(context)))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # What would wait for ever ends with "stopped before Future completed".
            loop.call_later(GUARD_SECONDS, loop.stop)
            try:
                self.result = f"returned {self.value(case(loop))}"
            except BaseException as error:
                self.result = self.exception(error)
                del error
            try:
                loop.close()
            except Exception as error:
                self.reports.append(f"close {self.exception(error)}")
            del loop
            gc.collect()
        self.warnings = [f"{w.category.__name__}: {self.text(w.message)}" for w in caught]

    def lines(self):
        return [self.result, *self.reports, *self.warnings]

    def exception(self, error):
        parts = [f"raised {type(error).__name__}: {self.text(error)}"]
        if isinstance(error, OSError):
            parts.append(f"errno {error.errno}")
        # Not __context__: what asyncio happened to be handling is an accident of its insides.
        if error.__cause__ is not None:
            parts.append(f"from {type(error.__cause__).__name__}: {self.text(error.__cause__)}")
        return ", ".join(parts)

    def report(self, context):
        exception = context.get("exception")
        what = f" {type(exception).__name__}: {self.text(exception)}" if exception else ""
        return f"report {self.text(context['message'])} {sorted(context)}{what}"

    def value(self, value):
        if isinstance(value, BaseException):
            return self.exception(value)
        return self.text(value)

    @staticmethod
    def text(value):
        text = str(value)
        # The loop's own repr, addresses, and ports that the system chose.
        text = re.sub(r"<[\w.]*Loop[^<>]*>", "<loop>", text)
        text = re.sub(r"<[\w.]*Transport(<[^<>]*>|[^<>])*>", "<transport>", text)
        text = re.sub(r"<\w+\.\.\.[^()]*(bufsize|fd|idle)[^()]*>", "<transport>", text)
        text = re.sub(r"\b_Unix(Read|Write)PipeTransport\b", r"\1PipeTransport", text)
        text = re.sub(r"\b_Selector\w*Transport\.", "DatagramTransport.", text)
        # Python names the class that defines a method, C functions only themselves.
        text = re.sub(r"\b[A-Z]\w+\.(\w+\(\) (missing|got|takes))", r"\1", text)
        text = re.sub(r"'(_asyncio|ouroloop)\.(Future|Task)'", r"'\2'", text)
        text = re.sub(r"<[\w.]*TaskStep\w* object", "<TaskStep object", text)
        text = re.sub(r"0x[0-9a-f]+", "0x...", text)
        text = re.sub(r"\bTask-\d+", "Task-N", text)
        # Also where reprlib has cut it.
        text = re.sub(r"[fd]{0,2}=\d+ polling", "fd polling", text)
        text = re.sub(r"\bfd=\d+|File descriptor \d+", "fd", text)
        return re.sub(r"\b\d{5}\b", "PORT", text)


def stock_loop():
    """A new loop of the standard library, whatever the policy says."""
    return asyncio.SelectorEventLoop()


def on_both(case, *, debug=False):
    """How a case ended on stock asyncio and on ouroloop, in debug mode or not: two outcomes."""

    def made_by(new_event_loop):
        def new():
            loop = new_event_loop()
            loop.set_debug(debug)
            return loop

        return new

    return Outcome(case, made_by(stock_loop)), Outcome(case, made_by(ouroloop.new_event_loop))


def nothing():
    """A callback that does nothing."""


def with_pair(function):
    """Call a function of two connected non-blocking sockets."""
    a, b = socket.socketpair()
    with a, b:
        a.setblocking(False)
        b.setblocking(False)
        return function(a, b)
