"""Run the test suites of other projects on stock asyncio and on ouroloop, and compare.

A test that passes on stock asyncio must pass on ouroloop.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

from . import namespace, table
from .compare import Verdict, count, failed, outcomes, worse
from .projects import PROJECTS

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
PYTHON = "{}.{}".format(*sys.version_info)
RUN_LIMIT_SECONDS = 3600
TEST_LIMIT_SECONDS = 120
DETAIL_LINES = 60
LOOPS = ("asyncio", "ouroloop")


class Failure(Exception):
    """What keeps a comparison from being made, for the user to read."""


def call(command, **options):
    result = subprocess.run(command, stdin=subprocess.DEVNULL, text=True, **options)
    if result.returncode:
        raise Failure(f"{' '.join(command)} ended with {result.returncode}: {result.stderr or ''}")
    return result.stdout


class Suite:
    """The suite of one project, unpacked beside the environment that it runs in."""

    def __init__(self, name):
        self.name = name
        self.project = PROJECTS[name]
        self.home = os.path.join(TOP, ".dev", "suites", PYTHON, name)
        self.python = os.path.join(self.home, "bin", "python")
        self.tree = os.path.join(self.home, "sdist")
        self.version = call(
            [self.python, "-c", f"import importlib.metadata as m; print(m.version({name!r}))"],
            stdout=subprocess.PIPE,
        ).strip()

    def download(self):
        """The path of the sdist, from PyPI unless it is there, checked either way."""
        folder = os.path.join(TOP, ".dev", "suites", "sdists")
        path = os.path.join(folder, f"{self.name}-{self.version}.tar.gz")
        if not os.path.exists(path):
            command = [self.python, "-m", "pip", "download", "-q", "--no-deps", "--dest", folder]
            command += ["--no-binary", self.name, f"{self.name}=={self.version}"]
            call(command, stderr=subprocess.PIPE)
        with open(path, "rb") as file:
            found = hashlib.sha256(file.read()).hexdigest()
        if found != self.project.sha256:
            raise Failure(f"{path} has the SHA-256 {found}, not {self.project.sha256}")
        return path

    def unpack(self):
        """Unpack the project's `files` as the sdist has them, without what earlier runs left."""
        shutil.rmtree(self.tree, ignore_errors=True)
        top = f"{self.name}-{self.version}"
        wanted = tuple(f"{top}/{file}" for file in self.project.files)
        with tarfile.open(self.download()) as archive:
            members = [
                member
                for member in archive
                if member.name in wanted or member.name.startswith(tuple(f"{w}/" for w in wanted))
            ]
            if not any(member.isfile() and "/test" in member.name for member in members):
                raise Failure(f"the sdist of {top} has no tests")
            archive.extractall(self.tree, members)
        self.directory = os.path.join(self.tree, top)
        self.hosts = os.path.join(self.tree, "hosts")
        namespace.write_hosts(self.hosts)

    def command(self, loop, tests):
        """The command that runs these tests, and the environment to run it in."""
        command = [self.python, "-m", "pytest", "-p", "suite_record", "-p", "no:cacheprovider"]
        command += ["-o", "addopts=", "--tb=short", f"--timeout={TEST_LIMIT_SECONDS}"]
        command += self.project.options
        if loop == "ouroloop":
            command.append("--ouroloop")
        command += tests or ["tests"]
        prefix = namespace.enter(self.hosts, self.project.unprivileged)
        if not prefix and self.project.unprivileged and os.geteuid() == 0:
            raise Failure(f"{self.name}'s tests start a server that root may not run")
        command = prefix + command
        environment = {
            name: value
            for name, value in os.environ.items()
            # The machine's own ideas of a proxy, of PostgreSQL, of Python and pytest.
            if not name.lower().endswith("_proxy") and not name.startswith(("PG", "PY", "USE_"))
        }
        environment["PYTHONPATH"] = os.path.join(HERE, "plugin")
        return command, environment

    def run(self, loop, tests=(), log=None):
        """Run these tests, or all: a Run."""
        command, environment = self.command(loop, list(tests))
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="suite-") as directory:
            os.chmod(directory, 0o777)
            record = os.path.join(directory, "record")
            environment["SUITE_RECORD"] = record
            with open(log or os.devnull, "w") as output:
                process = subprocess.Popen(
                    command,
                    cwd=self.directory,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                try:
                    process.wait(RUN_LIMIT_SECONDS)
                except subprocess.TimeoutExpired:
                    output.write(f"no end within {RUN_LIMIT_SECONDS} s\n")
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            try:
                with open(record) as file:
                    entries = [json.loads(line) for line in file if line.endswith("\n")]
            except FileNotFoundError:
                entries = []
        return Run(entries, time.monotonic() - started)


class Run:
    """A finished run: `outcomes` by test, `details` of those that failed, the loops it made."""

    def __init__(self, entries, seconds):
        self.outcomes = outcomes(entries)
        self.details = {}
        for entry in entries:
            if entry.get("outcome") == "failed":
                self.details.setdefault(entry["test"], entry["detail"])
        last = entries[-1] if entries else {}
        # None: the process ended before pytest did, or pytest, interrupted, before the last test.
        self.loops = last["loops"] if last.get("exit") in (0, 1) else None
        self.seconds = seconds


def again(suite, test, runs):
    """Run one test alone, this many times on either loop, and once each with its file."""
    passed = {
        loop: sum(suite.run(loop, [test]).outcomes.get(test) == "passed" for _ in range(runs))
        for loop in LOOPS
    }
    file = test.partition("::")[0]
    in_file = {loop: suite.run(loop, [file]).outcomes.get(test) == "passed" for loop in LOOPS}
    return Verdict(
        test,
        runs,
        passed["asyncio"],
        passed["ouroloop"],
        in_file["asyncio"],
        in_file["ouroloop"],
    )


def suspects(suite, stock, ours):
    """The tests to run again: worse here, or failed on both when stock asyncio may pass them."""
    both = sorted(failed(stock.outcomes) & failed(ours.outcomes))
    passing = suite.run("asyncio", both).outcomes if both else {}
    return [
        *worse(stock.outcomes, ours.outcomes),
        *(test for test in both if passing.get(test) == "passed"),
    ]


def compare(suite, runs):
    """Run a suite on both loops; its Counts, the loops made, and lines that tell of problems."""
    finished = {}
    for loop in LOOPS:
        log = os.path.join(suite.home, f"{loop}.log")
        finished[loop] = run = suite.run(loop, log=log)
        if run.loops is None:
            last = list(run.outcomes)[-1:] or ["the first test"]
            print(f"  {loop}: the run ended at {last[0]}: see {log}", flush=True)
        else:
            made = ", ".join(f"{number} {kind}" for kind, number in sorted(run.loops.items()))
            print(f"  {loop}: {run.seconds:.0f} s, loops made: {made}", flush=True)
    stock, ours = finished.values()
    problems, flaky, only_here = [], [], []
    if stock.loops is None:
        problems.append("stock asyncio did not come to the end of the suite")
    if "passed" not in stock.outcomes.values():
        problems.append("no test passed on stock asyncio")
    if ours.loops is None:
        problems.append("ouroloop did not come to the end of the suite")
    elif ours.loops.get("other") or not ours.loops.get("ouroloop"):
        problems.append(f"the loops of ouroloop's run were not all its own: {ours.loops}")
    tests = suspects(suite, stock, ours) if not problems else worse(stock.outcomes, ours.outcomes)
    for test in tests:
        verdict = again(suite, test, runs)
        (flaky if verdict.flaky() else only_here).append(test)
        print(f"  {'flaky' if verdict.flaky() else 'DIFFERENT'}: {verdict}", flush=True)
        if not verdict.flaky():
            problems.append(f"{test}: {ours.outcomes.get(test, 'not run')} on ouroloop only")
            problems += ours.details.get(test, "").splitlines()[-DETAIL_LINES:]
    return count(stock.outcomes, ours.outcomes, flaky, only_here), ours.loops, problems


def main():
    parser = argparse.ArgumentParser(prog="./dev suites", description=__doc__)
    parser.add_argument("projects", nargs="+", metavar="PROJECT", choices=list(PROJECTS))
    arguments = parser.parse_args()
    runs = 5
    failures = []
    for name in arguments.projects:
        try:
            suite = Suite(name)
            print(f"{name} {suite.version} on Python {PYTHON}", flush=True)
            suite.unpack()
            counts, loops, problems = compare(suite, runs)
        except Failure as failure:
            counts, problems = None, [str(failure)]
        if counts is not None:
            print(f"  {table.sentence(counts)}", flush=True)
        if problems:
            failures.append(name)
            print("\n".join(f"  {line}" for line in problems), flush=True)
        else:
            table.update(name, suite.version, PYTHON, counts, loops["ouroloop"])
    if failures:
        print(f"FAILED: {', '.join(failures)}")
        return 1
    print(f"{len(arguments.projects)} passed: what passes on asyncio passes on ouroloop")
    return 0
