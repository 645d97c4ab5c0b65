"""Run the interpreter's own test.test_asyncio on ouroloop, or on another loop as a control.

    python tests/asyncio/run.py [--loop ouroloop|asyncio|uvloop] [--types own|stock] [module ...]

One process per module and a time limit per test: a test that hangs or crashes is a failure of that
test, and the rest of the module goes on in a new process. Failures are compared with the table in
expected.py, and those outside it are tried on stock asyncio in the same harness: what fails there
too is the machine's doing, not the loop's. Exit code 0 means nothing else failed.
"""

import argparse
import contextlib
import dataclasses
import fnmatch
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time

from expected import EXPECTED, MAY_PASS

HERE = os.path.dirname(os.path.abspath(__file__))

# Modules that must have no failure outside the table; the longest first, so that none is last.
MODULES = (
    "test_subprocess",
    "test_ssl",
    "test_tasks",
    "test_sslproto",
    "test_futures",
    "test_futures2",
    "test_locks",
    "test_queues",
    "test_runners",
    "test_taskgroups",
    "test_timeouts",
    "test_waitfor",
    "test_eager_task_factory",
    "test_context",
    "test_pep492",
    "test_streams",
    "test_server",
    "test_server_context",
    "test_events",
    "test_base_events",
    "test_unix_events",
    "test_sock_lowlevel",
    "test_sendfile",
    "test_buffered_proto",
    "test_threads",
    "test_staggered",
    "test_protocols",
    "test_transports",
    "test_graph",
    "test_free_threading",
)
FAILED = ("fail", "error", "crash", "hang")


@dataclasses.dataclass
class ModuleRun:
    """What one module did: outcome and text by test id, and what its processes counted."""

    module: str
    outcomes: dict = dataclasses.field(default_factory=dict)
    counted: dict = dataclasses.field(default_factory=dict)
    processes: int = 0
    seconds: float = 0.0

    def failures(self):
        return {name: text for name, (outcome, text) in self.outcomes.items() if outcome in FAILED}

    def count(self, *outcomes):
        return sum(outcome in outcomes for outcome, _ in self.outcomes.values())


def short(module, test_id):
    """`test.test_asyncio.test_x.Class.test_y` -> `Class.test_y`."""
    return test_id.replace(f"test.test_asyncio.{module}.", "")


def suite_missing():
    """Why the suite cannot run here, or None."""
    try:
        spec = importlib.util.find_spec("test.test_asyncio")
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        package = f"libpython{version}-testsuite"
        return f"this Python has no test.test_asyncio (on Debian: apt-get install {package})"
    return None


def has_module(module):
    return importlib.util.find_spec(f"test.test_asyncio.{module}") is not None


def run_module(module, *, loop="ouroloop", types="own", limit=60.0, only=None, match=None):
    """Run one module to its end, in as many processes as crashes and hangs make necessary.

    `only` is a list of test ids, `match` a pattern over "Class.test"; None runs all.
    """
    result = ModuleRun(module)
    started = time.monotonic()
    while True:
        finished = run_process(result, loop, types, limit, only, match)
        result.processes += 1
        if finished:
            break
    result.seconds = time.monotonic() - started
    return result


def run_process(result, loop, types, limit, only, match):
    """Run what is left of the module in one process; False if a test brought the process down."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="test_asyncio_"))
        output = stack.enter_context(open(os.path.join(directory, "output"), "w+b"))
        read_fd, write_fd = os.pipe()
        stack.callback(os.close, read_fd)
        command = [
            sys.executable,
            os.path.join(HERE, "worker.py"),
            result.module,
            "--loop",
            loop,
            "--types",
            types,
        ]
        command += ["--limit", str(limit), "--fd", str(write_fd)]
        if match is not None:
            command += ["--match", match]
        for option, ids in (("--only", only), ("--done", list(result.outcomes) or None)):
            if ids is not None:
                path = os.path.join(directory, option.strip("-"))
                with open(path, "w") as file:
                    json.dump(list(ids), file)
                command += [option, path]
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(write_fd,),
            start_new_session=True,
        )
        os.close(write_fd)
        # Whatever the tests left running is in the worker's session.
        stack.callback(kill_group, process)

        running, done, hung = None, False, False
        for event in read_events(read_fd, process, limit + 30):
            if event is None:
                hung = True
                break
            kind = event.pop("event")
            if kind == "start":
                running = event["id"]
            elif kind == "end":
                result.outcomes[event["id"]] = event["outcome"], event["text"]
                running = None
            elif kind == "done":
                done = True
                for key, counts in event.items():
                    total = result.counted.setdefault(key, {})
                    for name, number in counts.items():
                        total[name] = total.get(name, 0) + number
        if hung:
            kill_group(process)
        status = process.wait(timeout=limit + 30) if done else wait_or_kill(process)
        output.seek(0)
        tail = output.read()[-6000:].decode(errors="replace")
        if done and running is None and status == 0:
            return True
        timed_out = hung or "Timeout (" in tail
        outcome = "hang" if timed_out else "crash"
        what = (
            f"no end within {limit:g} s" if timed_out else f"the process ended with status {status}"
        )
        if running is None and done:
            # Nothing is left for a new process: only the end of this one went wrong.
            result.outcomes["end of the process"] = outcome, f"{what}\n{tail}"
            return True
        if running is None and not result.outcomes:
            result.outcomes["start of the process"] = outcome, f"{what}\n{tail}"
            return True
        name = running or f"between tests, after {list(result.outcomes)[-1]}"
        if name in result.outcomes:
            raise RuntimeError(f"{result.module} stops twice at {name}: {tail}")
        result.outcomes[name] = outcome, f"{what}\n{tail}"
        return False


def read_events(fd, process, silence):
    """Yield the worker's events; None after a silence that its own watchdog should have ended."""
    pending = b""
    last = time.monotonic()
    while True:
        readable, _, _ = select.select([fd], [], [], 0.5)
        if readable:
            data = os.read(fd, 1 << 16)
            if not data:
                return
            last = time.monotonic()
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                yield json.loads(line)
        elif process.poll() is not None:
            # A forked child of a test may keep the pipe open after the worker itself is gone.
            return
        elif time.monotonic() - last > silence:
            yield None
            return


def wait_or_kill(process):
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        kill_group(process)
        return process.wait()


def kill_group(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def child_environment():
    environment = dict(os.environ)
    # The suite decides about debug mode itself.
    for name in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONWARNINGS"):
        environment.pop(name, None)
    return environment


@dataclasses.dataclass
class Verdict:
    """What is wrong with a run once the table and the control run have been looked at."""

    unexpected: dict
    expected: dict
    machine: dict
    stale: list

    @property
    def ok(self):
        return not self.unexpected and not self.stale


def judge(result, *, loop="ouroloop", types="own", limit=60.0):
    """Sort the failures: unexpected, expected (table), the machine's own (stock asyncio fails)."""
    names = {short(result.module, test_id): test_id for test_id in result.outcomes}
    failures = {short(result.module, test_id): text for test_id, text in result.failures().items()}
    expected, stale = {}, []
    if loop == "ouroloop":
        for module, pattern, versions, reason in EXPECTED:
            if module != result.module or sys.version_info[:2] not in versions:
                continue
            # Not every patch release of a version has the test.
            for name in fnmatch.filter(names, pattern):
                if name in failures:
                    expected[name] = reason
                elif name not in MAY_PASS:
                    stale.append(
                        f"{module}: {name} is listed as failing and does not fail ({reason})"
                    )
    unexpected = {name: text for name, text in failures.items() if name not in expected}
    machine = {}
    if unexpected and loop != "asyncio":
        control = run_module(
            result.module, loop="asyncio", limit=limit, only=[names[name] for name in unexpected]
        )
        for test_id in control.failures():
            name = short(result.module, test_id)
            if name in unexpected:
                machine[name] = unexpected.pop(name)
    return Verdict(unexpected, expected, machine, stale)


def summary(result, verdict):
    """One line: what passed, what did not, and on which types it ran."""
    parts = [
        f"{len(result.outcomes)} tests",
        f"{result.count('ok')} passed",
        f"{result.count('skip')} skipped",
    ]
    for label, names in (
        ("FAILED", verdict.unexpected),
        ("expected to fail", verdict.expected),
        ("fail on stock asyncio too", verdict.machine),
        ("stale in the table", verdict.stale),
    ):
        if names:
            parts.append(f"{len(names)} {label}")
    made = []
    for kind in ("loops", "tasks", "futures"):
        made += [
            f"{number} {name}" for name, number in result.counted.get(kind, {}).items() if number
        ]
    return f"{result.module}: {', '.join(parts)}; {result.seconds:.1f} s; made {', '.join(made)}"


def details(verdict):
    lines = []
    for name, text in verdict.unexpected.items():
        lines += [f"--- {name}", text.rstrip()]
    lines += [f"--- {line}" for line in verdict.stale]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "modules", nargs="*", metavar="MODULE", help=f"default: {' '.join(MODULES)}"
    )
    parser.add_argument("--loop", choices=("ouroloop", "asyncio", "uvloop"), default="ouroloop")
    parser.add_argument(
        "--types", choices=("own", "stock"), default="own", help="Task and Future under test"
    )
    parser.add_argument(
        "--limit", type=float, default=60.0, help="seconds for one test (default: 60)"
    )
    parser.add_argument(
        "-k", "--match", help="run only the tests whose Class.test matches this pattern"
    )
    args = parser.parse_args()

    missing = suite_missing()
    if missing:
        print(missing)
        return 2
    wrong = 0
    for module in args.modules or MODULES:
        if not has_module(module):
            print(f"{module}: not in this version of Python")
            continue
        result = run_module(
            module, loop=args.loop, types=args.types, limit=args.limit, match=args.match
        )
        verdict = judge(result, loop=args.loop, types=args.types, limit=args.limit)
        print(summary(result, verdict), flush=True)
        if not verdict.ok:
            wrong += 1
            print(details(verdict), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
