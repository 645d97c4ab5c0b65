"""The demo's chart: CPU time per part and loop as horizontal bars, labelled directly."""

from __future__ import annotations

import platform
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only: there may be no display
from matplotlib import pyplot

# Okabe and Ito's colours, told apart by colour-blind readers; the others step back.
COLOURS = {"ouroloop": "#0072B2", "uvloop": "#E69F00"}
PLAIN = "#A9A9A9"
INK, FAINT = "#222222", "#666666"
GAP = 0.9  # between two parts, in bars

# {part: {loop: (seconds, CPU seconds)}}
Figures = dict[str, dict[str, tuple[float, float]]]


def draw(figures: Figures, loops: list[str], whole: str, folder: Path) -> list[Path]:
    """Draw each part's CPU time and put that of the part `whole` into words above.

    The first of `loops` is what the factors refer to. Returns the files, all in `folder`.
    """
    # What text there is in the SVG stays text, and the same figures give the same file.
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "ouroloop"})
    measure = loops[0]
    parts = [part for part in figures if part != whole]
    group = len(loops) + GAP
    figure, axes = pyplot.subplots(figsize=(8, 0.26 * group * len(parts) + 1))
    longest = max(cpu for part in parts for _, cpu in figures[part].values())
    for number, part in enumerate(parts):
        middle = number * group + (len(loops) - 1) / 2
        name = part.replace(" ", "\n", 1) if len(part) > 10 else part
        axes.text(-0.36 * longest, middle, name, va="center", color=INK, size=11, weight="bold")
        for place, loop in enumerate(loops):
            y, cpu = number * group + place, figures[part][loop][1]
            axes.barh(y, cpu, 0.84, color=COLOURS.get(loop, PLAIN))
            label = f"{cpu:.2f} s"
            if loop != measure:
                label += f"  ({figures[part][measure][1] / cpu:.1f}x)"
            weight = "bold" if loop == "ouroloop" else "normal"
            for x, side, text in ((-0.01, "right", loop), (cpu / longest + 0.01, "left", label)):
                axes.text(
                    x * longest, y, text, ha=side, va="center", color=INK, size=9.5, weight=weight
                )
    axes.set_xlim(-0.36 * longest, 1.17 * longest)
    axes.set_ylim(group * len(parts) - GAP, -1)  # the first part on top
    axes.axis("off")

    whole_cpu = {loop: figures[whole][loop][1] for loop in loops}
    sums = ", ".join(f"{cpu:.1f} s on {loop}" for loop, cpu in whole_cpu.items())
    axes.set_title(
        f"CPU time, shorter is better; in brackets how many times less than on {measure}.\n"
        f"{whole.capitalize()}: {sums}. Python {platform.python_version()}.",
        loc="left",
        size=9.5,
        color=FAINT,
        linespacing=1.4,
    )
    figure.subplots_adjust(left=0.04, right=0.98, bottom=0.02, top=1 - 1 / figure.get_figheight())
    figure.text(
        0.04,
        1 - 0.2 / figure.get_figheight(),
        "One asyncio program, one line changed",
        va="top",
        size=15,
        weight="bold",
        color=INK,
    )
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "demo.png", folder / "demo.svg"]
    figure.savefig(files[0], dpi=160)
    figure.savefig(files[1], metadata={"Date": None})
    pyplot.close(figure)
    return files
