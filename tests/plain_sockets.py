"""What the tests of sock_recv() and its kin share: sockets, and arguments to call each with."""

import asyncio
import socket

# More than the kernel takes at once.
LARGE = 4 << 20

CALLS = {
    "sock_recv": (1,),
    "sock_recv_into": (bytearray(1),),
    "sock_sendall": (b"x",),
    "sock_accept": (),
    "sock_connect": (("127.0.0.1", 9),),
    "sock_recvfrom": (1,),
    "sock_recvfrom_into": (bytearray(1),),
    "sock_sendto": (b"x", ("127.0.0.1", 9)),
}
# Those that this version of Python has.
HERE = [name for name in CALLS if hasattr(asyncio.SelectorEventLoop, name)]


def listening(family=socket.AF_INET):
    sock = socket.socket(family)
    sock.setblocking(False)
    sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    sock.listen(5)
    return sock


def datagram():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    return sock
