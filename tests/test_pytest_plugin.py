"""`pytest --ouroloop`: each runner of asyncio tests gets our loops, and nothing stays behind."""

import re
import subprocess
import sys

import pytest

CHECK = """
import asyncio, sys

def check(expected):
    loop = asyncio.get_running_loop()
    assert type(loop).__module__.split(".")[0] == expected, loop
"""

SUITES = {
    "asyncio_run": """
        def test_run(expected):
            async def main():
                check(expected)
            asyncio.run(main())
    """,
    "unittest": """
        import unittest

        class Test(unittest.IsolatedAsyncioTestCase):
            async def test_case(self):
                check(EXPECTED)
    """,
    "unittest_default": """
        import unittest

        class Test(unittest.IsolatedAsyncioTestCase):
            loop_factory = getattr(asyncio, "EventLoop", None)  # since 3.13, the default's name

            async def test_case(self):
                check(EXPECTED)
                assert isinstance(asyncio.get_running_loop(), self.loop_factory or object)
    """,
    "pytest_asyncio": """
        import pytest

        @pytest.mark.asyncio
        async def test_marked(expected):
            check(expected)
    """,
    "pytest_aiohttp": """
        from aiohttp import web

        async def test_client(aiohttp_client, expected):
            async def hello(request):
                check(expected)
                return web.Response(text="hello")
            app = web.Application()
            app.router.add_get("/", hello)
            client = await aiohttp_client(app)
            assert await (await client.get("/")).text() == "hello"
    """,
    "anyio": """
        import pytest

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_anyio(expected):
            check(expected)
    """,
}

OPTIONS = {
    # Nothing of ours may warn, though asyncio's policies do since 3.14.
    "asyncio_run": ["-W", "error", *(f"-pno:{name}" for name in ("aiohttp", "anyio", "asyncio"))],
    "pytest_asyncio": ["-p", "no:aiohttp"],
    "pytest_aiohttp": ["--asyncio-mode=auto"],
    "anyio": ["-p", "no:asyncio", "-p", "no:aiohttp"],
}


def run_suite(directory, name, *options):
    """Run one of SUITES as a project of its own; its output."""
    expected = "ouroloop" if "--ouroloop" in options else "asyncio"
    lines = SUITES[name].splitlines()
    suite = "\n".join(line.removeprefix(" " * 8) for line in lines)
    (directory / "conftest.py").write_text(
        f"import pytest\n@pytest.fixture\ndef expected():\n    return {expected!r}\n"
    )
    (directory / "test_it.py").write_text(f"{CHECK}\nEXPECTED = {expected!r}\n{suite}\n")
    (directory / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    command += OPTIONS.get(name, [])
    result = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed" in result.stdout
    return result.stdout


def loops_made(output):
    return int(re.search(r"^ouroloop: (\d+) event loops made$", output, re.MULTILINE)[1])


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_runs_on_ouroloop(tmp_path, name):
    output = run_suite(tmp_path, name, "--ouroloop")
    assert re.search(r"^ouroloop: \S+ on libuv \S+ makes the event loops$", output, re.MULTILINE)
    assert loops_made(output) >= 1


@pytest.mark.parametrize("name", SUITES)
def test_without_the_flag_nothing_changes(tmp_path, name):
    assert "ouroloop: " not in run_suite(tmp_path, name)


def test_without_the_flag_the_package_is_not_imported(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_modules():\n"
        "    assert 'pytest_ouroloop' in sys.modules\n"
        "    assert 'ouroloop' not in sys.modules\n"
    )
    command = [sys.executable, "-m", "pytest", "-c", "/dev/null", "-p", "no:cacheprovider"]
    subprocess.run([*command, "test_it.py"], cwd=tmp_path, timeout=60, check=True)


def test_nothing_is_left_behind(tmp_path, run_python):
    test = "import asyncio\ndef test_run():\n    asyncio.run(asyncio.sleep(0))\n"
    (tmp_path / "test_it.py").write_text(test)
    script = """
import asyncio, ouroloop, pytest
from asyncio import events, unix_events

def state():
    # What asyncio.run() has made asyncio ask for its loop is no trace of ours.
    events._event_loop_policy = None
    return (
        getattr(asyncio, "EventLoop", None),
        vars(unix_events._UnixDefaultEventLoopPolicy)["_loop_factory"],
        ouroloop.Loop.__init__,
        type(asyncio.new_event_loop()),
    )

before = state()
arguments = ["--ouroloop", "-c", "/dev/null", "-p", "no:cacheprovider", "test_it.py"]
assert pytest.main(arguments) == 0
assert state() == before
"""
    assert loops_made(run_python(["-c", script], cwd=tmp_path).stdout) == 1


def test_loops_of_several_processes_are_counted_together(tmp_path):
    output = run_suite(tmp_path, "asyncio_run", "--ouroloop", "-n", "2")
    assert loops_made(output) == 1


def test_a_reset_policy_still_makes_our_loops(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import asyncio, warnings\n"
        "def test_policy():\n"
        "    with warnings.catch_warnings():\n"
        "        warnings.simplefilter('ignore')\n"
        "        asyncio.set_event_loop_policy(None)\n"
        "    loop = asyncio.new_event_loop()\n"
        "    loop.close()\n"
        "    assert type(loop).__module__ == 'ouroloop.loop'\n"
    )
    command = [sys.executable, "-m", "pytest", "-c", "/dev/null", "-p", "no:cacheprovider"]
    subprocess.run([*command, "--ouroloop", "test_it.py"], cwd=tmp_path, timeout=60, check=True)
