"""pytest plugin: `pytest --ouroloop` runs a project's own suite on ouroloop.

With the flag every event loop that asyncio makes is an ouroloop.Loop, whoever
asks: asyncio.run(), Runner, IsolatedAsyncioTestCase, pytest-asyncio, anyio,
pytest-aiohttp.  So is asyncio.EventLoop, the name of the default since 3.13;
only a suite that names another loop's class gets that one.

A module of its own, because pytest imports the plugins of all installed
distributions: without the flag not even the package is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import ouroloop

SWITCH = pytest.StashKey["Switch"]()
COUNT = "ouroloop_loops"


class Switch:
    """Puts ouroloop's loop where asyncio looks for its own, and counts those that are made.

    The default policy's class is changed, not the policy: suites reset the policy.
    """

    def __init__(self) -> None:
        import asyncio.unix_events

        import ouroloop

        self.loops = 0
        self._replaced: list[tuple[Any, str, Any]] = []
        self._replace(
            asyncio.unix_events._UnixDefaultEventLoopPolicy, "_loop_factory", ouroloop.Loop
        )
        if hasattr(asyncio, "EventLoop"):
            self._replace(asyncio, "EventLoop", ouroloop.Loop)
        init = ouroloop.Loop.__init__

        def __init__(loop: ouroloop.Loop) -> None:
            self.loops += 1
            init(loop)

        self._replace(ouroloop.Loop, "__init__", __init__)

    def _replace(self, owner: Any, name: str, value: object) -> None:
        self._replaced.append((owner, name, vars(owner)[name]))
        setattr(owner, name, value)

    def undo(self) -> None:
        """Give asyncio its own loop back."""
        while self._replaced:
            setattr(*self._replaced.pop())


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
