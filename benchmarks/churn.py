"""Connections that are made for one message each, plain ones; those of TLS are in tls.py."""

from __future__ import annotations

from harness import Benchmark
from serving import loaded_by_c

BENCHMARKS = [
    Benchmark(
        "tcp_churn",
        "accept, echo 64 B, the client closes; 10 at a time, server CPU per connection",
        "ns",
        loaded_by_c("tcp.py", "echo", "churn", 10, 64, 5_000),
        judge="median",
    ),
]
