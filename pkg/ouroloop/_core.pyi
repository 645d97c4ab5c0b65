# The types of the compiled half; what things mean stands in its docstrings.
import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextvars import Context
from typing import Any, ClassVar, TypeAlias, TypeVar, final, type_check_only

from typing_extensions import TypeVarTuple, Unpack, disjoint_base

_T = TypeVar("_T")
_R = TypeVar("_R", covariant=True)
_Ts = TypeVarTuple("_Ts")
_CoroutineLike: TypeAlias = Coroutine[Any, Any, _T] | Generator[Any, None, _T]

LIBUV_COMPILED: str
LIBUV_RUNNING: str
BUILD_FLAGS: str
LAYOUT: str
REGISTERS: str
FAST_TYPES: bool
STOCK_TYPES_REASON: str

class Future(asyncio.Future[_T]): ...

# Until 3.13 it is larger than asyncio's.
if sys.version_info >= (3, 14):
    class Task(asyncio.Task[_T], Future[_T]): ...

else:
    @disjoint_base
    class Task(asyncio.Task[_T], Future[_T]): ...

@type_check_only
class SockCall(Awaitable[_R]):
    def __await__(self) -> Generator[Any, None, _R]: ...
    sent: int

@final
class StreamTransport(asyncio.Transport):
    max_size: ClassVar[int]
    def write(self, data: bytes | bytearray | memoryview) -> None: ...
    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None: ...
    _lent: bool
    @property
    def _sock(self) -> socket.socket | None: ...
    def _make_empty_waiter(self) -> asyncio.Future[None]: ...
    def _reset_empty_waiter(self) -> None: ...

@final
class DatagramTransport(asyncio.Transport, asyncio.DatagramTransport):
    max_size: ClassVar[int]
    def sendto(self, data: bytes | bytearray | memoryview, addr: Any | None = None) -> None: ...

@final
class ReadPipeTransport(asyncio.ReadTransport):
    max_size: ClassVar[int]
    def set_protocol(self, protocol: asyncio.BaseProtocol, /) -> None: ...

@final
class WritePipeTransport(asyncio.WriteTransport):
    def is_reading(self) -> bool: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

@disjoint_base
class TlsProtocol:
    def get_buffer(self, sizehint: int, /) -> memoryview: ...
    def buffer_updated(self, nbytes: int, /) -> None: ...
    def _settle(self) -> None: ...

@disjoint_base
class TlsTransport(asyncio.Transport):
    def write(self, data: bytes | bytearray | memoryview) -> None: ...

@disjoint_base
class Loop:
    _closed: bool
    _debug: bool
    _stopping: bool
    _thread_id: int | None
    _task_factory: Any
    _current_handle: asyncio.Handle | None

    def call_soon(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: Unpack[_Ts],
        context: Context | None = None,
    ) -> asyncio.Handle: ...
    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[_Ts]], object],
        *args: Unpack[_Ts],
        context: Context | None = None,
    ) -> asyncio.Handle: ...
    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: Unpack[_Ts],
        context: Context | None = None,
    ) -> asyncio.TimerHandle: ...
    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[_Ts]], object],
        *args: Unpack[_Ts],
        context: Context | None = None,
    ) -> asyncio.TimerHandle: ...
    def time(self) -> float: ...
    def create_future(self) -> asyncio.Future[Any]: ...
    # eager_start: from 3.13.3 on.
    if sys.version_info >= (3, 13):
        def create_task(
            self,
            coro: _CoroutineLike[_T],
            *,
            name: object = None,
            context: Context | None = None,
            eager_start: bool | None = None,
        ) -> asyncio.Task[_T]: ...
    elif sys.version_info >= (3, 11):
        def create_task(
            self,
            coro: _CoroutineLike[_T],
            *,
            name: object = None,
            context: Context | None = None,
        ) -> asyncio.Task[_T]: ...
    else:
        def create_task(
            self, coro: _CoroutineLike[_T], *, name: object = None
        ) -> asyncio.Task[_T]: ...

    def stop(self) -> None: ...
    def is_running(self) -> bool: ...
    def is_closed(self) -> bool: ...
    def get_debug(self) -> bool: ...
    def _run(self) -> None: ...
    def _run_once(self) -> None: ...
    def _close_uv(self) -> None: ...
    def _attach_signals(self) -> None: ...
    def _detach_signals(self) -> None: ...
    def _signal_fd(self) -> int: ...
    def _open_handles(self) -> list[str]: ...
    def _make_socket_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[Any] | None = None,
        *,
        extra: dict[str, Any] | None = None,
        server: asyncio.AbstractServer | None = None,
        context: Context | None = None,
    ) -> StreamTransport: ...
    def _make_datagram_transport(
        self,
        sock: socket.socket,
        protocol: asyncio.BaseProtocol,
        address: Any = None,
        waiter: asyncio.Future[Any] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> DatagramTransport: ...
    def _make_read_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[Any] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> ReadPipeTransport: ...
    def _make_write_pipe_transport(
        self,
        pipe: Any,
        protocol: asyncio.BaseProtocol,
        waiter: asyncio.Future[Any] | None = None,
        extra: dict[str, Any] | None = None,
    ) -> WritePipeTransport: ...
    def _lookup_addresses(self, /, *args: Any) -> asyncio.Future[Any] | None: ...
    def _lookup_name(self, /, *args: Any) -> asyncio.Future[Any] | None: ...
    def _call_recv(self, sock: socket.socket, n: int, /) -> SockCall[bytes]: ...
    def _call_recv_into(self, sock: socket.socket, buf: Any, /) -> SockCall[int]: ...
    def _call_recvfrom(
        self, sock: socket.socket, bufsize: int, /
    ) -> SockCall[tuple[bytes, Any]]: ...
    def _call_recvfrom_into(
        self, sock: socket.socket, buf: Any, nbytes: int, /
    ) -> SockCall[tuple[int, Any]]: ...
    def _call_accept(self, sock: socket.socket, /) -> SockCall[tuple[socket.socket, Any]]: ...
    def _call_sendall(self, sock: socket.socket, data: Any, /) -> SockCall[None]: ...
    def _call_sendto(self, sock: socket.socket, data: Any, address: Any, /) -> SockCall[int]: ...
    def _call_connect(self, sock: socket.socket, address: Any, /) -> SockCall[None]: ...
    def _call_sendfile(
        self, sock: socket.socket, file: int, offset: int, count: int, size: int, /
    ) -> SockCall[int]: ...
    def _watched(self, fd: int, /) -> int: ...
