"""TLS: the C core joined to the standard library's own SSL protocol.

What runs per read and write is C (`_core.TlsProtocol`, `_core.TlsTransport`);
handshake, shutdown, timeouts and errors are asyncio's own code, found by
inheritance. TLS itself is the `ssl` module's, with the user's SSLContext.
"""

import sys
import types
from asyncio import base_events, sslproto
from collections.abc import Callable
from typing import Any

from . import _core

__all__ = ("SSLTransport", "TlsProtocol")


if sys.version_info < (3, 11):
    # Another design, which ends with this version.
    from asyncio.sslproto import SSLProtocol as TlsProtocol
    from asyncio.sslproto import _SSLProtocolTransport as SSLTransport
else:

    class SSLTransport(_core.TlsTransport, sslproto._SSLProtocolTransport):
        """What an application writes to.

        Programs, asyncio's tests among them, look for "ssl" in its name.
        """

    class TlsProtocol(_core.TlsProtocol, sslproto.SSLProtocol):
        """Between a transport and an application's protocol.

        What is written in a callback waits for its end; each method that would
        see the difference first has it encrypted and passed on.
        """

        # asyncio makes a buffer of this size for each connection. Ours has one for
        # all that it shares with its transports.
        max_size = 0

        def _get_app_transport(self) -> SSLTransport:
            if self._app_transport is None:
                if self._app_transport_created:
                    raise RuntimeError("Creating _SSLProtocolTransport twice")
                self._app_transport = SSLTransport(self._loop, self)
                self._app_transport_created = True
            return self._app_transport

        def _set_app_protocol(self, app_protocol: Any) -> None:
            self._settle()
            super()._set_app_protocol(app_protocol)

        def _get_write_buffer_size(self) -> int:
            self._settle()
            return super()._get_write_buffer_size()

        def _set_write_buffer_limits(self, high: Any = None, low: Any = None) -> None:
            self._settle()
            super()._set_write_buffer_limits(high, low)

        def _start_shutdown(self) -> None:
            self._settle()
            super()._start_shutdown()

        def _abort(self, *exc: Any) -> None:
            self._settle()
            super()._abort(*exc)

        def _fatal_error(self, *args: Any, **kwargs: Any) -> None:
            self._settle()
            super()._fatal_error(*args, **kwargs)


def with_globals(function: Callable[..., Any], **replaced: Any) -> Callable[..., Any]:
    """Return the same function with some of its global names replaced."""
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, **replaced},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__doc__ = function.__doc__
    copy.__qualname__ = function.__qualname__
    return copy


# asyncio's own, of whichever version, but for the class of the protocol, which
# it finds by name.
start_tls = with_globals(
    base_events.BaseEventLoop.start_tls,
    sslproto=types.SimpleNamespace(SSLProtocol=TlsProtocol),
)
