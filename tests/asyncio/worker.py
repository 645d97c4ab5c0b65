"""Run one module of the interpreter's asyncio tests here; report each test on a pipe (run.py)."""

import argparse
import faulthandler
import fnmatch
import functools
import gc
import importlib
import json
import os
import signal
import sys
import traceback
import unittest

import expected
import modules
from swap import Swap


class Reporter(unittest.TestResult):
    """Writes one JSON line when a test begins and one when its outcome is known."""

    def __init__(self, fd, limit, limit_of_expected):
        """`limit_of_expected(test)`: a shorter limit for a test that the table names, or None."""
        super().__init__()
        self._fd = fd
        self._limit = limit
        self._limit_of_expected = limit_of_expected
        self._outcome = None

    def send(self, **event):
        data = json.dumps(event).encode() + b"\n"
        while data:
            data = data[os.write(self._fd, data) :]

    def startTest(self, test):
        super().startTest(test)
        self._outcome = ("ok", "")
        self.send(event="start", id=test.id())
        # A C thread of its own: it also ends a test that hangs in C code while holding the GIL.
        limit = self._limit_of_expected(test) or self._limit
        faulthandler.dump_traceback_later(limit, exit=True)

    def stopTest(self, test):
        faulthandler.cancel_dump_traceback_later()
        # 3.12.1 stops the tests of a skipped class without having started them.
        if self._outcome is not None:
            outcome, text = self._outcome
            self.send(event="end", id=test.id(), outcome=outcome, text=text)
            self._outcome = None
        super().stopTest(test)

    def _set(self, test, outcome, text=""):
        if self._outcome is None:
            # setUpModule, setUpClass and their counterparts report outside any test.
            self.send(event="start", id=test.id())
            self.send(event="end", id=test.id(), outcome=outcome, text=text)
        elif self._outcome[0] in ("ok", "skip"):
            self._outcome = (outcome, text)

    def addError(self, test, err):
        self._set(test, "error", format_error(err))

    def addFailure(self, test, err):
        self._set(test, "fail", format_error(err))

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self._set(test, "fail", f"{subtest}\n{format_error(err)}")

    def addSkip(self, test, reason):
        self._set(test, "skip", reason)

    def addExpectedFailure(self, test, err):
        self._set(test, "ok")

    def addUnexpectedSuccess(self, test):
        self._set(test, "fail", "unexpected success")


def format_error(err):
    return "".join(traceback.format_exception(*err))


def short_id(module, test):
    return modules.short(module, test.id())


def flatten(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flatten(item)
        else:
            yield item


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("module")
    parser.add_argument("--loop", default="ouroloop")
    parser.add_argument("--types", choices=("own", "stock"), default="own")
    parser.add_argument("--limit", type=float, default=60.0)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--only", help="file with a JSON list of the test ids to run")
    parser.add_argument("--match", help="pattern over Class.test of the tests to run")
    parser.add_argument("--done", help="file with a JSON list of test ids to leave out")
    args = parser.parse_args()
    short = functools.partial(short_id, args.module)
    os.set_inheritable(args.fd, False)
    faulthandler.enable()
    # A shell has its background commands ignore Ctrl-C, which some tests send.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    swap = Swap(args.loop, args.types)
    swap.install()
    made_by_children = None
    if args.module in modules.WITH_CHILDREN:
        made_by_children = os.path.abspath("made_by_children")
        open(made_by_children, "x").close()
        swap.install_in_children(made_by_children)

    from test import support

    # What the suite's own runner enables without -u, plus tests that are merely slow.
    support.use_resources = {"cpu": None, "walltime": None}

    module = importlib.import_module(modules.find(args.module))
    swap.adapt(module)
    tests = list(flatten(unittest.defaultTestLoader.loadTestsFromModule(module)))
    tests = [test for test in tests if modules.is_chosen(args.module, short(test))]
    if args.only:
        with open(args.only) as file:
            only = set(json.load(file))
        tests = [test for test in tests if test.id() in only]
    if args.match:
        tests = [test for test in tests if fnmatch.fnmatch(short(test), args.match)]
    if args.done:
        with open(args.done) as file:
            done = set(json.load(file))
        tests = [test for test in tests if test.id() not in done]

    def limit_of_expected(test):
        if args.loop == "ouroloop" and expected.is_expected(args.module, short(test)):
            return expected.LIMIT

    # Many tests end with three full collections; what is here now is no garbage of theirs.
    gc.collect()
    gc.freeze()
    reporter = Reporter(args.fd, args.limit, limit_of_expected)
    unittest.TestSuite(tests).run(reporter)
    faulthandler.dump_traceback_later(args.limit, exit=True)
    if made_by_children is not None:
        swap.made.read(made_by_children)
    reporter.send(event="done", made=[[*key, number] for key, number in swap.count().items()])
    # At exit a leftover thread or child must not hang the run.
    sys.stdout.flush()


if __name__ == "__main__":
    main()
