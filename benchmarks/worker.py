"""Time one program on one loop in this process and print the figure as JSON."""

from __future__ import annotations

import argparse
import json
import sys

import callbacks  # noqa: F401  each of them registers its programs
import lifecycle  # noqa: F401
import process  # noqa: F401
import sock  # noqa: F401
import tasks  # noqa: F401
from harness import PROGRAMS, Backend, Unavailable, pin, time_program


def main() -> None:
    """Parse the command line, time, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("loop")
    parser.add_argument("--sample-seconds", type=float, default=0.1)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--cpu", type=int, default=0)
    options = parser.parse_args()
    pin(options.cpu)
    try:
        backend = Backend.load(options.loop)
    except Unavailable as error:
        sys.exit(str(error))
    chosen = PROGRAMS[options.program]
    best = time_program(chosen, backend, options.sample_seconds, options.samples)
    print(json.dumps({"ns": best}))


if __name__ == "__main__":
    main()
