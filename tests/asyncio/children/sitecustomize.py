"""The swap in each Python program that a test starts; Python imports this by itself."""

import os
import sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

sys.path.insert(0, HERE)
import swap  # noqa: E402 - found by the path above

loop_name, types, path = os.environ[swap.VARIABLE].split(" ", 2)
swap.Swap(loop_name, types, path).install()
sys.path.remove(HERE)
