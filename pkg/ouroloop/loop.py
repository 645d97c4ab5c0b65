"""The event loop: the C core joined to the standard library's own loop.

What runs per callback is C (`_core.Loop`); what runs once per connection or
rarer is asyncio's own code, found by inheritance, so that each of its features
is here as soon as CPython has it.
"""

import _socket
import asyncio
import contextvars
import os
import selectors
import socket
import sys
import threading
from asyncio import base_events, events, tasks, unix_events
from asyncio.exceptions import SendfileNotAvailableError
from asyncio.log import logger
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from . import _core
from .process import ChildWatcher, chosen_child_watcher
from .tls import TlsProtocol, start_tls

if TYPE_CHECKING:
    import ssl

__all__ = ("Loop",)

# Tests and tools put their own in the place of these.
SYSTEM_LOOKUPS = (socket.getaddrinfo, _socket.getaddrinfo, socket.getnameinfo, _socket.getnameinfo)

# After sock_sendfile() the file's position is where it has read to; some versions of
# asyncio leave it alone when nothing was sent, and take that count as an argument.
MOVES_UNSENT_FILE = (
    unix_events._UnixSelectorEventLoop._sock_sendfile_update_filepos.__code__.co_argcount < 4
)


class LibuvSelector:
    """What asyncio's selector loop keeps in `_selector`, over libuv.

    The loop polls by itself; this answers what the standard library's
    transports ask of a selector and closes libuv's side with the loop.
    """

    # Who puts a select() of his own here is told that the loop would never call it.
    __slots__ = ("_loop",)

    def __init__(self, loop: _core.Loop) -> None:
        self._loop = loop

    def get_key(self, fd: int) -> selectors.SelectorKey:
        """Return the SelectorKey of a watched descriptor, else KeyError."""
        watched = self._loop._watched(fd)
        if not watched:
            raise KeyError(f"{fd!r} is not registered")
        return selectors.SelectorKey(fd, fd, watched, None)

    def get_map(self) -> "LibuvSelector":
        """Return this object, which maps descriptors as get() does."""
        return self

    def get(self, fd: int, default: Any = None) -> Any:
        """Return the SelectorKey of a watched descriptor, else default."""
        try:
            return self.get_key(fd)
        except KeyError:
            return default

    def select(self, timeout: float | None = None) -> list[Any]:
        """Have the loop do a whole turn by itself, and return that nothing is left to do.

        timeout: wait so many seconds at most; None: for ever.
        Who replaces run_forever() and _run_once() asks, as nest_asyncio does to run
        a loop within one of its own callbacks.
        """
        loop = self._loop
        loop._attach_signals()
        end = None if timeout is None else loop.call_later(timeout, bool)
        # From 3.14 on tasks that are written in Python have a register of their own.
        register = tasks._current_tasks if sys.version_info >= (3, 14) else {}
        outer = register.pop(loop, None)
        try:
            _core.Loop._run_once(loop)
        finally:
            if outer is not None:
                register[loop] = outer
            if end is not None:
                end.cancel()
        return []

    def close(self) -> None:
        """Close every uvhandle: the last step of closing the loop."""
        self._loop._close_uv()


class WakeupSocket:
    """The loop's `_csock`: what add_signal_handler() gives to set_wakeup_fd().

    Opened when first asked for: most loops never handle a signal.
    """

    def __init__(self, loop: _core.Loop) -> None:
        self._loop = loop

    def fileno(self) -> int:
        """Return the descriptor that signal numbers are written to."""
        return self._loop._signal_fd()


class Loop(_core.Loop, asyncio.SelectorEventLoop):
    """An asyncio event loop on libuv.

    Everything that asyncio.SelectorEventLoop documents holds here.
    """

    _has_own_executor = False

    def __init__(self) -> None:
        super().__init__(cast(selectors.BaseSelector, LibuvSelector(self)))
        # From 3.14 on asyncio keeps it under this name, a thread's if there
        # are no pidfds.
        if sys.version_info < (3, 14) or unix_events.can_use_pidfd():
            self._watcher = ChildWatcher()

    def _make_self_pipe(self) -> None:
        # libuv has its own way to wake the loop; only signals need a file
        # descriptor, and asyncio asks for it under this name.
        self._csock: WakeupSocket | None = WakeupSocket(self)

    def _close_self_pipe(self) -> None:
        self._csock = None

    def close(self) -> None:
        """Close the loop.

        Child processes that still run are no longer watched. Raise
        RuntimeError if the loop runs.
        """
        super().close()
        if isinstance(self._watcher, ChildWatcher):
            self._watcher.close()

    def run_forever(self) -> None:
        """Run until stop() is called.

        Raise RuntimeError if the loop is closed, if it runs already, or if
        another loop runs in this thread.
        """
        self._run_forever_setup()
        try:
            self._attach_signals()
            self._run()
        finally:
            if not self._signal_handlers:
                self._detach_signals()
            self._run_forever_cleanup()

    if sys.version_info < (3, 13):

        def _run_forever_setup(self) -> None:
            self._check_closed()
            self._check_running()
            self._set_coroutine_origin_tracking(self._debug)
            self._outer_asyncgen_hooks = sys.get_asyncgen_hooks()
            self._thread_id = threading.get_ident()
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook,
                finalizer=self._asyncgen_finalizer_hook,
            )
            events._set_running_loop(self)

        def _run_forever_cleanup(self) -> None:
            self._stopping = False
            self._thread_id = None
            events._set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*self._outer_asyncgen_hooks)

    if sys.version_info < (3, 14):

        async def _make_subprocess_transport(
            self, protocol: Any, *spawning: Any, extra: Any = None, **options: Any
        ) -> Any:
            if chosen_child_watcher():
                return await super()._make_subprocess_transport(  # type: ignore[misc] # no stub has it
                    protocol, *spawning, extra=extra, **options
                )
            connected = self.create_future()
            transport = unix_events._UnixSubprocessTransport(
                self, protocol, *spawning, waiter=connected, extra=extra, **options
            )
            self._watcher.add_child_handler(
                transport.get_pid(), self._child_watcher_callback, transport
            )
            try:
                await connected
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException:
                # Whoever wanted the child has gone away; it ends first.
                transport.close()
                await asyncio.shield(transport._wait())
                raise
            return transport

    def _make_ssl_transport(
        self,
        rawsock: socket.socket,
        protocol: asyncio.BaseProtocol,
        sslcontext: "ssl.SSLContext",
        waiter: Any = None,
        *,
        extra: dict[str, Any] | None = None,
        server: asyncio.AbstractServer | None = None,
        context: contextvars.Context | None = None,
        server_side: bool = False,
        server_hostname: str | None = None,
        **timeouts: Any,
    ) -> asyncio.Transport:
        # As asyncio's own, but over a transport of ours.
        ssl_protocol = TlsProtocol(
            self, protocol, sslcontext, waiter, server_side, server_hostname, **timeouts
        )
        keywords: dict[str, Any] = {} if context is None else {"context": context}
        self._make_socket_transport(rawsock, ssl_protocol, extra=extra, server=server, **keywords)
        return ssl_protocol._app_transport

    start_tls = start_tls

    def _accept_tls(
        self,
        fd: int,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        sslcontext: "ssl.SSLContext",
        server: asyncio.AbstractServer | None,
        timeouts: tuple[float | None, ...],
        context: contextvars.Context | None,
    ) -> None:
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        try:
            extra = {"peername": sock.getpeername()}
        except OSError:
            sock.close()  # The client has gone already.
            return
        keywords: dict[str, Any] = {} if context is None else {"context": context.copy()}
        accepting = self._accept_connection2(
            protocol_factory, sock, extra, sslcontext, server, *timeouts, **keywords
        )
        self.create_task(accepting, **keywords)

    async def sock_recv(self, sock: socket.socket, n: int) -> bytes:
        """Receive up to n bytes from a non-blocking socket.

        Return them, b"" at the end of the stream. Raise OSError as the socket
        does, also when it is closed meanwhile.
        """
        return await self._call_recv(sock, n)

    async def sock_recv_into(self, sock: socket.socket, buf: Any) -> int:
        """Receive bytes from a non-blocking socket into a writable buffer.

        Return how many, 0 at the end of the stream. Raise OSError as the
        socket does, also when it is closed meanwhile.
        """
        return await self._call_recv_into(sock, buf)

    if sys.version_info >= (3, 11):

        async def sock_recvfrom(self, sock: socket.socket, bufsize: int) -> tuple[bytes, Any]:
            """Receive a datagram of up to bufsize bytes.

            Return the bytes and the sender's address. Raise OSError as the
            socket does, also when it is closed meanwhile.
            """
            return await self._call_recvfrom(sock, bufsize)

        async def sock_recvfrom_into(
            self, sock: socket.socket, buf: Any, nbytes: int = 0
        ) -> tuple[int, Any]:
            """Receive a datagram into a writable buffer.

            nbytes: at most so many; 0: as many as there is room for.
            Return how many bytes it had, and the sender's address. Raise
            OSError as the socket does, also when it is closed meanwhile.
            """
            return await self._call_recvfrom_into(sock, buf, nbytes)

        async def sock_sendto(self, sock: socket.socket, data: Any, address: Any) -> int:
            """Send a datagram to an address; return how many bytes it had.

            Raise OSError as the socket does, also when it is closed meanwhile.
            """
            return await self._call_sendto(sock, data, address)

    async def sock_sendall(self, sock: socket.socket, data: Any) -> None:
        """Send all bytes of a bytes-like object on a connected socket.

        Raise OSError as the socket does, also when it is closed meanwhile;
        how much was sent by then is not known.
        """
        return await self._call_sendall(sock, data)

    async def sock_accept(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        """Accept a connection on a listening socket.

        Return a non-blocking socket and the peer's address. Raise OSError as
        the socket does, also when it is closed meanwhile.
        """
        return await self._call_accept(sock)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect a non-blocking socket to an address.

        A host name in it is looked up. Raise OSError as the socket does, also
        when it is closed meanwhile, socket.gaierror for an unknown host.
        """
        base_events._check_ssl_socket(sock)
        if self._debug and sock.gettimeout() != 0:
            raise ValueError("the socket must be non-blocking")
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            resolved = await self._ensure_resolved(
                address, family=sock.family, type=sock.type, proto=sock.proto, loop=self
            )
            address = resolved[0][4]
        return await self._call_connect(sock, address)

    async def _sock_sendfile_native(
        self, sock: socket.socket, file: Any, offset: int, count: int | None
    ) -> int:
        # Asked where asyncio asks, for those who make it believe otherwise.
        if not hasattr(unix_events.os, "sendfile"):
            raise SendfileNotAvailableError("os.sendfile() is not available")
        try:
            number = file.fileno()
            size = os.fstat(number).st_size
        except (AttributeError, OSError):
            # io.UnsupportedOperation is an OSError, too.
            error = SendfileNotAvailableError("not a regular file")
        else:
            if not (count or size):
                return 0
            return await self._sendfile_number(sock, number, offset, count or 0, size)
        raise error

    async def _sendfile_number(
        self, sock: socket.socket, number: int, offset: int, count: int, size: int
    ) -> int:
        call = self._call_sendfile(sock, number, offset, count, size)
        try:
            return await call
        finally:
            if call.sent or MOVES_UNSENT_FILE:
                os.lseek(number, offset + call.sent, os.SEEK_SET)

    async def _sendfile_native(
        self, transport: Any, file: Any, offset: int, count: int | None
    ) -> int:
        resume_reading = transport.is_reading()
        transport.pause_reading()
        await transport._make_empty_waiter()
        # Meanwhile sock_sendfile() may watch the descriptor.
        transport._lent = True
        try:
            return await self.sock_sendfile(transport._sock, file, offset, count, fallback=False)
        finally:
            transport._lent = False
            transport._reset_empty_waiter()
            if resume_reading:
                transport.resume_reading()

    def set_default_executor(self, executor: Any) -> None:
        """Set the executor of run_in_executor(None, ...), and of name lookups from now on."""
        super().set_default_executor(executor)
        self._has_own_executor = True

    def _resolves_itself(self) -> bool:
        # In C and threads of our own, unless somebody could tell.
        run_in_executor = getattr(self.run_in_executor, "__func__", None)
        return (
            not (self._debug or self._closed or self._has_own_executor)
            and not self._executor_shutdown_called
            and run_in_executor is base_events.BaseEventLoop.run_in_executor
            and SYSTEM_LOOKUPS
            == (
                socket.getaddrinfo,
                _socket.getaddrinfo,
                socket.getnameinfo,
                _socket.getnameinfo,
            )
        )

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        """Return what socket.getaddrinfo() returns, without blocking the loop.

        Raise socket.gaierror and all that it raises.
        """
        if self._resolves_itself():
            answer = self._lookup_addresses(host, port, family, type, proto, flags)
            if answer is not None:
                return cast(list[Any], await answer)
        return await super().getaddrinfo(
            host, port, family=family, type=type, proto=proto, flags=flags
        )

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        """Return what socket.getnameinfo() returns, without blocking the loop.

        Raise socket.gaierror and all that it raises.
        """
        if self._resolves_itself():
            answer = self._lookup_name(sockaddr, flags)
            if answer is not None:
                return cast(tuple[str, str], await answer)
        return await super().getnameinfo(sockaddr, flags)

    def _log_if_slow(self, handle: asyncio.Handle, seconds: float) -> None:
        if seconds >= self.slow_callback_duration:
            logger.warning(
                "Executing %s took %.3f seconds",
                base_events._format_handle(handle),
                seconds,
            )

    def _add_callback(self, handle: asyncio.Handle) -> None:
        # asyncio's own Handle, of a signal: it runs in its own context.
        if not handle._cancelled:
            self.call_soon(handle._run)

    def remove_signal_handler(self, sig: int) -> bool:
        """Remove the handler of a signal.

        sig: the signal's number.  Return True if there was a handler.
        """
        removed = super().remove_signal_handler(sig)
        if removed and self.is_running():
            # asyncio gives the wakeup fd up with the last handler; Ctrl-C
            # still has to wake a running loop.
            self._attach_signals()
        return removed
