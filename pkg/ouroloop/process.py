"""How a loop learns that its child processes have exited.

Spawning is the standard library's: `subprocess.Popen` under asyncio's own
subprocess transport. Here is what waits for the exit.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from asyncio import events, unix_events
from asyncio.log import logger
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loop import Loop

__all__ = ("ChildWatcher", "chosen_child_watcher")

if sys.version_info >= (3, 14):
    # The standard library's tests ask for this type.
    Base: Any = unix_events._PidfdChildWatcher
    Threads: Any = unix_events._ThreadedChildWatcher
    # asyncio has no choice of child watchers any more.
    DefaultWatchers: tuple[Any, ...] = ()
elif sys.version_info >= (3, 12):
    Base = object
    Threads = unix_events.ThreadedChildWatcher
    # The second is asyncio's choice when no descriptor is free as it is asked for the first time.
    DefaultWatchers = (unix_events.PidfdChildWatcher, unix_events.ThreadedChildWatcher)
else:
    Base = object
    Threads = unix_events.ThreadedChildWatcher
    DefaultWatchers = (unix_events.ThreadedChildWatcher,)

# The words of the watcher that asyncio uses by default on this version.
if sys.version_info >= (3, 12):
    REAPED_ELSEWHERE = "child process pid %d exit status already read:  will report returncode 255"
else:
    REAPED_ELSEWHERE = "Unknown child process pid %d, will report returncode 255"

ExitCallback = Callable[[int, int, Any], object]


def chosen_child_watcher() -> bool:
    """Has the program chosen how child processes are watched?

    Until Python 3.13 it can, by asyncio.set_child_watcher() or by a policy of
    its own.
    """
    if not DefaultWatchers:
        return False
    policy: Any = asyncio.get_event_loop_policy()
    method = getattr(type(policy), "get_child_watcher", None)
    if method is unix_events._UnixDefaultEventLoopPolicy.get_child_watcher:
        # None until somebody asks for it.
        watcher = policy._watcher
        return watcher is not None and type(watcher) not in DefaultWatchers
    return method not in (None, events.AbstractEventLoopPolicy.get_child_watcher)


class ChildWatcher(Base):
    """Watches the children of one loop.

    The kernel gives a descriptor for each (a pidfd), which becomes readable
    when the child exits; where it does not, a thread waits. Neither needs a
    signal handler nor the main thread.
    """

    # It does not hold its loop: a closed one is freed when nobody else does.
    def __init__(self) -> None:
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._in_threads: Any = None
        self._pid = os.getpid()

    def add_child_handler(self, pid: int, callback: ExitCallback, transport: Any) -> None:
        """Call callback(pid, returncode, transport) when the child exits."""
        loop: Loop = transport._loop
        process = transport.get_extra_info("subprocess")
        try:
            pidfd = os.pidfd_open(pid)
        except (AttributeError, OSError):
            # None such, not allowed, no descriptor left, or the child is gone.
            self._watch_in_thread(process, callback, transport)
            return
        try:
            loop._add_reader(pidfd, self._exited, loop, pidfd, process, callback, transport)
        except OSError:
            os.close(pidfd)
            self._watch_in_thread(process, callback, transport)
            return
        self._children[pidfd] = process

    def _watch_in_thread(
        self, process: "subprocess.Popen[bytes]", callback: ExitCallback, transport: Any
    ) -> None:
        if self._in_threads is None:
            self._in_threads = Threads()
        try:
            self._in_threads.add_child_handler(process.pid, callback, transport)
        except RuntimeError:
            # No thread can be started: nobody would ever know of this child.
            transport.close()
            process.wait()
            raise

    def _exited(
        self,
        loop: "Loop",
        pidfd: int,
        process: "subprocess.Popen[bytes]",
        callback: ExitCallback,
        transport: Any,
    ) -> None:
        loop._remove_reader(pidfd)
        del self._children[pidfd]
        os.close(pidfd)
        callback(process.pid, self._reap(process), transport)

    def _reap(self, process: Any) -> int:
        # Popen's lock and field: its own poll() may be the first, when the
        # transport is closed or signals are sent, or in another thread.
        with process._waitpid_lock:
            if process.returncode is None:
                try:
                    _, status = os.waitpid(process.pid, 0)
                except ChildProcessError:
                    logger.warning(REAPED_ELSEWHERE, process.pid)
                    process.returncode = 255
                else:
                    process.returncode = unix_events.waitstatus_to_exitcode(status)
            returncode: int = process.returncode
        return returncode

    def close(self) -> None:
        """Stop watching: the loop is closed.

        Children that still run must not stay behind as zombies.
        """
        children, self._children = self._children, {}
        for pidfd, process in children.items():
            os.close(pidfd)
            if os.getpid() == self._pid and process.poll() is None:
                name = f"ouroloop-waitpid-{process.pid}"
                # Without a thread to wait, the exit of this process is the end
                # of it.
                with contextlib.suppress(RuntimeError):
                    threading.Thread(target=process.wait, name=name, daemon=True).start()
