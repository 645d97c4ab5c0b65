"""What ouroloop is to reach, as data; `run.py` says which targets it reached."""

from __future__ import annotations

from dataclasses import dataclass

# figures[benchmark][loop]: the judged figure, smaller is better.
Figures = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Target:
    """ouroloop's figure of `benchmark` against `against`'s, or against nothing.

    With `at_least`, `against` / ouroloop must reach it (so many times as fast); with
    `at_most`, ouroloop / `against`, or the figure itself if `against` is "", must not
    exceed it.
    """

    benchmark: str
    against: str
    at_least: float = 0.0
    at_most: float = 0.0

    def wanted(self) -> str:
        """The bound in words."""
        if self.at_least:
            return f">= {self.at_least:g}x {self.against}"
        if self.against:
            return f"<= {self.at_most:g}x {self.against}"
        return f"<= {self.at_most:g} B"

    def check(self, figures: Figures) -> tuple[str, bool] | None:
        """What was reached, in words, and whether it suffices; None if not measured."""
        row = figures.get(self.benchmark, {})
        ours = row.get("ouroloop")
        theirs = row.get(self.against) if self.against else 1.0
        if ours is None or theirs is None:
            return None
        if self.at_least:
            return f"{theirs / ours:.2f}x", theirs / ours >= self.at_least
        if self.against:
            return f"{ours / theirs:.2f}x", ours / theirs <= self.at_most
        return f"{ours:.0f} B", ours <= self.at_most


TARGETS = [
    Target("create_task", "uvloop", at_least=5.0),
    Target("future_ping_pong", "uvloop", at_least=5.0),
    Target("sleep0_1_task", "uvloop", at_least=4.0),
    Target("sleep0_100_tasks", "uvloop", at_least=2.0),
    Target("call_soon_chain", "uvloop", at_least=3.0),
    Target("gather_1000", "uvloop", at_least=2.0),
    Target("lock_10_tasks", "uvloop", at_least=1.8),
    Target("event_ping_pong", "uvloop", at_least=1.8),
    Target("call_later_cancelled", "uvloop", at_least=2.5),
    Target("call_later_fired", "uvloop", at_least=1.5),
    Target("call_soon_threadsafe", "uvloop", at_least=1.5),
    Target("queue_10", "uvloop", at_least=1.3),
    Target("loop_create_close", "asyncio", at_least=1.0),
    Target("run_empty", "asyncio", at_least=1.0),
    Target("tcp_echo_1k", "libuv", at_most=1.1),
    Target("task_waiting_traced", "", at_most=700),
    Target("connection_idle_rss", "", at_most=1000),
]
