"""What the rounds of a run say together: one figure, a ratio and how far it spreads."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

# values[benchmark][loop]: one figure per round, smaller is better.
Values = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Ratio:
    """A loop's figure divided by another's, and the same of the rounds' extremes."""

    value: float
    least: float
    greatest: float

    def inverse(self) -> Ratio:
        """The ratio the other way round."""
        return Ratio(1 / self.value, 1 / self.greatest, 1 / self.least)

    def spread(self) -> str:
        """The extremes in words."""
        return f"{self.least:.2f} to {self.greatest:.2f}"


def ratio(judge: str, theirs: list[float], ours: list[float]) -> Ratio:
    """How many times as fast we are: of the minima if `judge` is "min", else the median of
    the ratios within each round, whose loops had the machine in the same state."""
    each = [one / other for one, other in zip(theirs, ours, strict=False)]
    value = min(theirs) / min(ours) if judge == "min" else statistics.median(each)
    return Ratio(value, min(*each, value), max(*each, value))
