"""pytest plugin: `pytest --ouroloop` runs a project's own suite on ouroloop.

With the flag every event loop that asyncio makes is an ouroloop.Loop, whoever
asks: asyncio.run(), Runner, IsolatedAsyncioTestCase, pytest-asyncio, anyio,
pytest-aiohttp.  Only a suite that names another loop's class gets that one.

A module of its own, because pytest imports the plugins of all installed
distributions: without the flag not even the package is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import asyncio

SWITCH = pytest.StashKey["Switch"]()
COUNT = "ouroloop_loops"


class Switch:
    """Makes asyncio's default policy create ouroloop's loops, and counts them.

    The policy's class is changed, not the policy: suites reset the policy.
    """

    def __init__(self) -> None:
        import asyncio.unix_events

        import ouroloop

        self.loops = 0
        self._new_event_loop = ouroloop.new_event_loop
        self._policy: Any = asyncio.unix_events._UnixDefaultEventLoopPolicy
        self._stock_factory = self._policy.__dict__["_loop_factory"]
        self._policy._loop_factory = staticmethod(self._make_loop)

    def _make_loop(self) -> asyncio.AbstractEventLoop:
        self.loops += 1
        return self._new_event_loop()

    def undo(self) -> None:
        """Give asyncio its own loop back."""
        self._policy._loop_factory = self._stock_factory


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("ouroloop").addoption(
        "--ouroloop",
        action="store_true",
        help="run on ouroloop: each event loop that asyncio makes is an ouroloop.Loop",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--ouroloop"):
        config.stash[SWITCH] = Switch()


def pytest_unconfigure(config: pytest.Config) -> None:
    switch = config.stash.get(SWITCH, None)
    if switch is not None:
        switch.undo()


def pytest_report_header(config: pytest.Config) -> str | None:
    if SWITCH not in config.stash:
        return None
    import ouroloop

    info = ouroloop.build_info()
    return f"ouroloop: {info['version']} on libuv {info['libuv_running']} makes the event loops"


def pytest_sessionfinish(session: pytest.Session) -> None:
    # A pytest-xdist worker: its loops are counted where the summary is written.
    output = getattr(session.config, "workeroutput", None)
    if output is not None and SWITCH in session.config.stash:
        output[COUNT] = session.config.stash[SWITCH].loops


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if SWITCH in node.config.stash:
        node.config.stash[SWITCH].loops += getattr(node, "workeroutput", {}).get(COUNT, 0)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if SWITCH in config.stash:
        loops = config.stash[SWITCH].loops
        terminalreporter.write_line(f"ouroloop: {loops} event loops made")
