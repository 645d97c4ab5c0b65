"""Each program of examples/ has the same output and status on ouroloop as on stock asyncio.

The programs do not know of ouroloop; `python -m ouroloop program.py` puts its loop under them.
"""

import glob
import importlib.util
import os
import re
import subprocess
import sys

import pytest

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EXAMPLES = sorted(glob.glob(os.path.join(PROJECT, "examples", "*.py")))
NEEDS = {"download.py": "aiohttp"}
LIMIT = 60


def normalise(text):
    """Take out what differs from run to run: addresses, line numbers, durations."""
    text = re.sub(r"0x[0-9a-fA-F]+", "0x...", text)
    text = re.sub(r"(\.py):\d+", r"\1:N", text)
    text = re.sub(r"line \d+, in", "line N, in", text)
    return re.sub(r"\b\d+\.\d+ ?(s|ms|seconds)\b", "D", text)


def start(arguments):
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    try:
        stdout, stderr = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
        pytest.fail(f"{process.args} did not end within {LIMIT} s\n{stdout}\n{stderr}")
    return normalise(stdout), normalise(stderr), process.returncode


@pytest.mark.timeout(3 * LIMIT)
@pytest.mark.parametrize("path", EXAMPLES, ids=os.path.basename)
def test_same_as_on_stock_asyncio(path):
    needed = NEEDS.get(os.path.basename(path))
    if needed and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    name = os.path.relpath(path, PROJECT)
    runs = [start([name]), start(["-m", "ouroloop", name])]
    stock, ours = [finish(process) for process in runs]
    assert stock[2] == 0, stock[1]
    assert stock[0], "the example prints nothing to compare"
    assert ours[0] == stock[0], ours[1]
    assert ours[1:] == stock[1:]


@pytest.mark.parametrize("path", EXAMPLES, ids=os.path.basename)
def test_is_a_short_unmodified_program(path):
    with open(path) as file:
        text = file.read()
    assert text.count("\n") <= 60
    assert "ouroloop" not in text
    assert "import uvloop" not in text
