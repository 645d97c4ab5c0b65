"""Event loop policies, which Python 3.16 removes: the one-line door for
programs that never name a loop."""

import sys
from asyncio import events, unix_events

from .loop import Loop

__all__ = ("EventLoopPolicy", "install")


# By this name, as the public ones warn on 3.14 even when only looked at.
class EventLoopPolicy(unix_events._UnixDefaultEventLoopPolicy):
    """The default policy of asyncio with ouroloop.Loop as its loop.

    asyncio.set_event_loop_policy(ouroloop.EventLoopPolicy())
    """

    _loop_factory = Loop


def install() -> None:
    """Make every event loop that asyncio creates from now on an ouroloop.Loop.

    Loops that exist already stay as they are.
    """
    if sys.version_info >= (3, 14):
        events._set_event_loop_policy(EventLoopPolicy())
    else:
        events.set_event_loop_policy(EventLoopPolicy())
