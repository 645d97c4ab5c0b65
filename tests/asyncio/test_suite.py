"""The interpreter's own asyncio tests, module by module, on ouroloop (see run.py)."""

import concurrent.futures
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import run

# Several processes of a module one after the other, each test with its own limit (run.py's).
TIMEOUT = 900

missing = run.suite_missing()
pytestmark = [pytest.mark.skipif(bool(missing), reason=str(missing)), pytest.mark.timeout(TIMEOUT)]

RUNS = [(module, "own") for module in run.MODULES]
# The loop must run the stock Task and Future as well: libraries build asyncio.Task themselves.
RUNS += [
    (module, "stock")
    for module in ("test_tasks", "test_futures", "test_taskgroups", "test_timeouts")
]


@pytest.fixture(scope="module")
def running(request):
    """What was selected, running: a future for each module, as many at a time as there are CPUs."""
    selected = [
        (item.callspec.params["module"], item.callspec.params["types"])
        for item in request.session.items
        if item.path == request.path and item.originalname == "test_stdlib_module"
    ]
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    yield {
        (module, types): pool.submit(run.run_module, module, types=types)
        for module, types in selected
        if run.has_module(module)
    }
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize(("module", "types"), RUNS, ids=lambda value: value)
def test_stdlib_module(module, types, running, suite_lines):
    if (module, types) not in running:
        pytest.skip(f"{module} is not in this version of Python")
    result = running[module, types].result()
    verdict = run.judge(result, types=types)
    line = f"{run.summary(result, verdict)} [{types} types]"
    suite_lines.append(line)
    print(line)
    assert verdict.ok, f"{line}\n{run.details(verdict)}"
    assert result.outcomes, "no test ran"


def test_swap_reaches_every_way_to_a_loop(suite_lines):
    """The counts are worth nothing unless the tests' loops, tasks and futures are ours."""
    import ouroloop

    result = run.run_module("test_locks")
    own = "ouroloop" if ouroloop.Task.__module__.startswith("ouroloop") else "_asyncio"
    assert result.counted["loops"], "no loop was made"
    for name in result.counted["loops"]:
        assert name.startswith("ouroloop"), name
    for name in result.counted["futures"]:
        assert name.startswith(own), name
    stock_tasks = result.counted["tasks"].get("_asyncio.Task", 0)
    assert sum(result.counted["tasks"].values()) > stock_tasks or own == "_asyncio"


def test_a_hang_and_a_crash_are_failures_of_their_test(tmp_path, monkeypatch):
    """The harness itself: the tests after a hang and a crash still run, in new processes."""
    package = tmp_path / "test_overlay"
    package.mkdir()
    (package / "sitecustomize.py").write_text(OVERLAY)
    monkeypatch.setenv("PYTHONPATH", str(package), prepend=os.pathsep)
    result = run.run_module("test_ouroloop_harness", loop="asyncio", limit=1.0)
    outcomes = {name.rpartition(".")[2]: outcome for name, (outcome, _) in result.outcomes.items()}
    assert outcomes == {
        "test_1_passes": "ok",
        "test_2_hangs": "hang",
        "test_3_crashes": "crash",
        "test_4_fails": "fail",
        "test_5_passes": "ok",
    }
    assert result.processes == 3


OVERLAY = """
import sys, types, unittest, os, signal, time
name = "test.test_asyncio.test_ouroloop_harness"
module = types.ModuleType(name)
class T(unittest.TestCase):
    def test_1_passes(self): pass
    def test_2_hangs(self): time.sleep(60)
    def test_3_crashes(self): os.kill(os.getpid(), signal.SIGSEGV)
    def test_4_fails(self): self.fail()
    def test_5_passes(self): pass
T.__module__ = name
T.__qualname__ = "T"
module.T = T
sys.modules[name] = module
"""
