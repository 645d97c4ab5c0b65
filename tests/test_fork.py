"""csrc/fork.c: a child and the loops that it inherits.  More in tests/isolated/forks.py."""

import os
import socket

import ouroloop
import pytest


def child_status(function):
    """Fork, run the function in the child; its exit status, 0 if the function returned."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# 3.12 warns of fork in a process with threads; a test before may have left one.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def test_the_parents_readers_survive_what_the_child_does(loop):
    left, right = socket.socketpair()
    loop.add_reader(right, loop.stop)
    loop.call_soon(loop.stop)
    loop.run_forever()

    def child():
        loop.remove_reader(right)
        loop.close()

    assert child_status(child) == 0
    left.send(b"x")
    timeout = loop.call_later(10, loop.stop)
    loop.run_forever()
    assert not timeout.when() < loop.time()
    timeout.cancel()
    loop.remove_reader(right)
    left.close()
    right.close()


def test_the_inherited_loop_does_not_run(loop):
    def child():
        with pytest.raises(RuntimeError, match="inherited by fork"):
            loop.run_forever()
        with pytest.raises(RuntimeError, match="inherited by fork"):
            loop._run_once()

    assert child_status(child) == 0
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_a_child_that_returns_into_the_running_loop_leaves_it(loop):
    order = []

    def forking():
        pid = os.fork()
        if pid:
            order.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            loop.stop()

    parent = os.getpid()
    loop.call_soon(forking)
    loop.call_soon(order.append, "after")
    try:
        loop.run_forever()
    except RuntimeError as exc:
        if os.getpid() != parent:
            os._exit(7 if "inherited by fork" in str(exc) and not order else 1)
        raise
    finally:
        if os.getpid() != parent:
            os._exit(1)
    assert order == [7, "after"]


def test_loops_that_were_closed_before_are_left_alone():
    for _ in range(3):
        ouroloop.new_event_loop().close()
    first, second, third = (ouroloop.new_event_loop() for _ in range(3))
    second.close()
    assert child_status(lambda: first.close() or third.close()) == 0
    first.close()
    third.close()
