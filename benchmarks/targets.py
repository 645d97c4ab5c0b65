"""What ouroloop is to reach, as data; `run.py` says which targets it reached."""

from __future__ import annotations

from dataclasses import dataclass

import tcp
from harness import Benchmark
from rounds import Values, ratio

RIVALS = ("uvloop", "rloop")
OTHERS = ("asyncio", "uvloop", "rloop")


@dataclass(frozen=True)
class Target:
    """ouroloop's figure of `benchmark` against the best of `against`, or against nothing.

    With `at_least`, `against` / ouroloop must reach it (so many times as fast); with
    `at_most`, ouroloop / `against`, or the figure itself if `against` is empty, must not
    exceed it.
    """

    benchmark: str
    against: tuple[str, ...] = ()
    at_least: float = 0.0
    at_most: float = 0.0

    def wanted(self) -> str:
        """The bound in words."""
        names = " and ".join(self.against)
        if self.at_least:
            return f">= {self.at_least:g}x {names}"
        return f"<= {self.at_most:g}x {names}" if names else f"<= {self.at_most:g} B"

    def check(self, benchmark: Benchmark, values: Values) -> list[str] | None:
        """What was measured, its spread and whether it suffices; None if nothing was.

        "even" is a ratio that falls short by less than the rounds differ.
        """
        taken = values[benchmark.name]
        ours = taken.get("ouroloop")
        if not ours:
            return None
        if not self.against:
            worst = max(ours)
            return [f"{worst:.0f} B", "", "yes" if worst <= self.at_most else "NO"]
        compared = [
            ratio(benchmark.judge, taken[name], ours) for name in self.against if name in taken
        ]
        if not compared:
            return None
        found = min(compared, key=lambda one: one.value)
        if self.at_most:
            found = found.inverse()
            reached, even = found.value <= self.at_most, found.least <= self.at_most
        else:
            reached, even = found.value >= self.at_least, found.greatest >= self.at_least
        verdict = "yes" if reached else "even" if even else "NO"
        return [f"{found.value:.2f}x", found.spread(), verdict]


def tcp_cells() -> list[Target]:
    """Each size on each number of connections, against the floor and against the rivals."""
    names = [f"tcp_echo_{size}_{count}" for size in tcp.SIZES for count in tcp.CONNECTIONS]
    return [Target(name, (tcp.FLOOR,), at_most=1.1) for name in names] + [
        Target(name, RIVALS, at_least=1.0) for name in names
    ]


TARGETS = [
    Target("create_task", ("uvloop",), at_least=5.0),
    Target("future_ping_pong", ("uvloop",), at_least=5.0),
    Target("sleep0_1_task", ("uvloop",), at_least=4.0),
    Target("sleep0_100_tasks", ("uvloop",), at_least=2.0),
    Target("call_soon_chain", ("uvloop",), at_least=3.0),
    Target("gather_1000", ("uvloop",), at_least=2.0),
    Target("lock_10_tasks", ("uvloop",), at_least=1.8),
    Target("event_ping_pong", ("uvloop",), at_least=1.8),
    Target("call_later_cancelled", ("uvloop",), at_least=2.5),
    Target("call_later_fired", ("uvloop",), at_least=1.5),
    Target("call_soon_threadsafe", ("uvloop",), at_least=1.5),
    Target("queue_10", ("uvloop",), at_least=1.3),
    Target("loop_create_close", ("asyncio",), at_least=1.0),
    Target("run_empty", ("asyncio",), at_least=1.0),
    *tcp_cells(),
    Target("tcp_three_writes_1k", ("uvloop",), at_least=2.0),
    Target("unix_echo_1k", ("uvloop",), at_least=1.15),
    Target("streams_readline_1k", ("uvloop",), at_least=1.5),
    Target("streams_readexactly_1k", ("uvloop",), at_least=1.5),
    Target("streams_unix_1k", ("uvloop",), at_least=1.6),
    Target("tls_echo_1k", ("uvloop",), at_least=2.0),
    Target("tls_echo_1k", ("asyncio",), at_least=1.0),
    Target("tls_bulk_send", ("uvloop",), at_least=1.1),
    Target("tls_bulk_receive", ("uvloop",), at_least=1.1),
    Target("tls_churn", ("uvloop",), at_least=1.1),
    Target("udp_echo_64b", ("uvloop",), at_least=1.4),
    Target("udp_echo_1k", ("uvloop",), at_least=1.4),
    Target("sock_echo_pair", ("uvloop",), at_least=4.0),
    Target("sock_echo_1k_1", RIVALS, at_least=1.0),
    Target("sock_echo_1k_10", RIVALS, at_least=1.0),
    Target("process_spawn", ("uvloop",), at_least=2.4),
    Target("tcp_churn", ("uvloop",), at_least=1.0),
    Target("tcp_bulk_send", OTHERS, at_least=1.0),
    Target("tcp_bulk_receive", OTHERS, at_least=1.0),
    Target("pipe_read", ("uvloop",), at_least=1.1),
    Target("task_waiting_traced", at_most=700),
    Target("connection_idle_rss", at_most=1000),
    Target("tls_idle_rss", ("asyncio",), at_most=1.0),
]
