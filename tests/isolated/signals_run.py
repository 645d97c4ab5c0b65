"""Signals: Python's handlers and the loop's run promptly, none is lost, nothing stays changed."""

import asyncio
import os
import signal
import socket
import sys
import time

import ouroloop
from ctrl_c import LONG, PROMPT, interrupt_later


def python_handler():
    """A handler set with signal.signal runs while the loop waits, not at its next event."""
    loop = ouroloop.new_event_loop()
    seen = []

    def handler(number, frame):
        seen.append(elapsed())
        loop.call_soon_threadsafe(loop.stop)

    signal.signal(signal.SIGUSR1, handler)
    elapsed = interrupt_later(number=signal.SIGUSR1)
    loop.call_later(LONG, loop.stop)
    loop.run_forever()
    loop.close()
    (took,) = seen
    assert took < PROMPT, took


def python_handler_raises():
    """What such a handler raises leaves the loop."""
    loop = ouroloop.new_event_loop()

    def handler(number, frame):
        raise ZeroDivisionError("from the handler")

    signal.signal(signal.SIGUSR1, handler)
    interrupt_later(number=signal.SIGUSR1)
    loop.call_later(LONG, loop.stop)
    try:
        loop.run_forever()
    except ZeroDivisionError:
        assert not loop.is_running()
    else:
        raise AssertionError("the exception was lost")
    assert loop.run_until_complete(asyncio.sleep(0, 1)) == 1
    loop.close()


def loop_handler():
    loop = ouroloop.new_event_loop()
    seen = []

    def handler(*args):
        seen.append((args, elapsed()))
        loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, handler, "a", 2)
    elapsed = interrupt_later(number=signal.SIGUSR1)
    loop.call_later(LONG, loop.stop)
    loop.run_forever()
    ((args, took),) = seen
    assert args == ("a", 2)
    assert took < PROMPT, took
    assert loop.remove_signal_handler(signal.SIGUSR1) is True
    assert loop.remove_signal_handler(signal.SIGUSR1) is False
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    loop.close()


def before_the_run():
    """A signal that arrives while the loop does not run is handled when it does."""
    loop = ouroloop.new_event_loop()
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.run_until_complete(asyncio.sleep(0.05))
    assert seen == [1], seen
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.run_until_complete(asyncio.sleep(0.05))
    assert seen == [1, 1], seen
    loop.close()


def sigchld():
    """SIGCHLD is as free for the program as any other signal, also beside subprocesses."""
    seen = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, seen.append, 1)
        process = await asyncio.create_subprocess_exec("true")
        assert await process.wait() == 0
        await asyncio.sleep(0.05)
        loop.remove_signal_handler(signal.SIGCHLD)

    ouroloop.run(main())
    assert seen, "SIGCHLD was not seen"


def wakeup_fd_restored():
    """What was there before the run is there afterwards."""
    a, _ = socket.socketpair()
    a.setblocking(False)
    signal.set_wakeup_fd(a.fileno())
    loop = ouroloop.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert signal.set_wakeup_fd(-1) == a.fileno()


def default_handlers_restored():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        before = signal.getsignal(number)
        loop = ouroloop.new_event_loop()
        loop.add_signal_handler(number, print)
        loop.close()
        after = signal.getsignal(number)
        assert after is before, (number, before, after)


def storm():
    """Many signals in a row: each kind is seen, and the loop goes on."""
    loop = ouroloop.new_event_loop()
    seen = set()
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        loop.add_signal_handler(number, seen.add, number)
    deadline = time.monotonic() + LONG

    async def main():
        for _ in range(300):
            for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
                os.kill(os.getpid(), number)
            await asyncio.sleep(0)
        while len(seen) < 3 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    loop.run_until_complete(main())
    assert len(seen) == 3, seen
    loop.close()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
