"""Ctrl-C: SIGINT from another process must end a waiting loop at once, not at its next event."""

import asyncio
import os
import signal
import struct
import sys
import time

import ouroloop

# The promise is 50 ms; a busy machine may take longer, a loop that misses the signal 30 s.
PROMPT = 10
LONG = 30


def interrupt_later(delay=0.3, times=1, number=signal.SIGINT):
    """Start a process that sends this one a signal; a function that tells how long ago."""
    read_fd, write_fd = os.pipe()
    parent = os.getpid()
    if os.fork() == 0:
        for _ in range(times):
            time.sleep(delay)
            os.write(write_fd, struct.pack("d", time.monotonic()))
            os.kill(parent, number)
        os._exit(0)
    os.close(write_fd)

    def elapsed():
        data = os.read(read_fd, 8 * times)
        return time.monotonic() - struct.unpack_from("d", data, len(data) - 8)[0]

    return elapsed


def expect_interrupt(run, times=1):
    elapsed = interrupt_later(times=times)
    try:
        run()
    except KeyboardInterrupt:
        took = elapsed()
        assert took < PROMPT, f"KeyboardInterrupt came after {took:.2f} s"
        return
    raise AssertionError("no KeyboardInterrupt")


def loop_stays_usable(loop):
    assert not loop.is_running()
    assert loop.run_until_complete(asyncio.sleep(0.01, "again")) == "again"


def sleeping():
    loop = ouroloop.new_event_loop()
    task = loop.create_task(asyncio.sleep(LONG))
    expect_interrupt(lambda: loop.run_until_complete(task))
    task.cancel()
    loop_stays_usable(loop)
    loop.close()


def forever():
    loop = ouroloop.new_event_loop()
    expect_interrupt(loop.run_forever)
    loop_stays_usable(loop)
    loop.close()


def reading():
    loop = ouroloop.new_event_loop()
    read_fd, _ = os.pipe()
    loop.add_reader(read_fd, print, "never")
    expect_interrupt(loop.run_forever)
    loop.remove_reader(read_fd)
    loop_stays_usable(loop)
    loop.close()


def busy():
    """Always with work ready, the kernel is rarely asked."""
    loop = ouroloop.new_event_loop()

    async def spin():
        while True:
            await asyncio.sleep(0)

    task = loop.create_task(spin())
    expect_interrupt(lambda: loop.run_until_complete(task))
    task.cancel()
    loop_stays_usable(loop)
    loop.close()


def with_signal_handler():
    """Other signals are handled by the loop, SIGINT still by Python."""
    loop = ouroloop.new_event_loop()
    loop.add_signal_handler(signal.SIGUSR1, print, "never")
    expect_interrupt(loop.run_forever)
    loop.close()


def runner():
    """asyncio.run: the main task is cancelled, cleans up, and KeyboardInterrupt comes out."""
    events = []

    async def main():
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            events.append("cancelled")
            await asyncio.sleep(0.01)
            events.append("cleaned up")
            raise

    expect_interrupt(lambda: ouroloop.run(main()))
    # Before 3.11 nothing cancels the main task before the loop is left.
    assert events == ["cancelled", "cleaned up"], events


def runner_twice():
    """The second Ctrl-C ends a main task that does not want to end."""

    async def main():
        while True:
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                if sys.version_info < (3, 11):
                    raise
                await asyncio.sleep(LONG)

    expect_interrupt(lambda: ouroloop.run(main()), times=2 if sys.version_info >= (3, 11) else 1)


def ignored():
    """With SIGINT ignored nothing happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupt_later(0.1)
    # When that process has ended, it has sent the signal.
    _, status = ouroloop.run(asyncio.to_thread(os.wait))
    assert status == 0


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
