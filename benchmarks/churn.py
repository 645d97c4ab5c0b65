"""Connections that are made for one message each, plain ones; those of TLS are in tls.py."""

from __future__ import annotations

from harness import Benchmark
from serving import CLoad

BENCHMARKS = [
    Benchmark(
        "tcp_churn",
        "accept, echo 64 B, the client closes; 10 at a time, server CPU per connection",
        "ns",
        CLoad("tcp.py", "echo", 5_000, "churn", 10, 64),
        judge="median",
    ),
]
