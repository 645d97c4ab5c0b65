"""The counts, in words and in docs/compatibility.md."""

import os

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PATH = os.path.join(TOP, "docs", "compatibility.md")
BEGIN = "<!-- made by ./dev suites -->"
END = "<!-- end of what ./dev suites made -->"
HEAD = """\
| project | Python | run | passed | skipped | failed on both | flaky | failed only here | loops |
|---|---|---|---|---|---|---|---|---|
"""


def sentence(counts):
    return (
        f"{counts.run} run, {counts.passed} passed, {counts.skipped} skipped, "
        f"{counts.failed_on_both} failed on both, {counts.flaky} flaky, "
        f"{counts.only_here} failed only on ouroloop"
    )


def cells(row):
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def key(row):
    """Rows sort by project, then by Python, and each pair has one."""
    project, python = cells(row)[:2]
    return project.split()[0], tuple(map(int, python.split(".")))


def with_row(text, row):
    """The text of the document with this row, in the place of the one it had if it had one."""
    before, begin, rest = text.partition(BEGIN)
    made, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} and {END}")
    rows = [line for line in made.splitlines() if line.startswith("|")][2:]
    rows = [other for other in rows if key(other) != key(row)] + [row]
    return "".join(
        [before, BEGIN, "\n", HEAD, *(f"{r}\n" for r in sorted(rows, key=key)), END, after]
    )


def update(project, version, python, counts, loops):
    values = (
        *(counts.run, counts.passed, counts.skipped, counts.failed_on_both, counts.flaky),
        *(counts.only_here, loops),
    )
    row = "| " + " | ".join([f"{project} {version}", python, *map(str, values)]) + " |"
    with open(PATH) as file:
        text = file.read()
    with open(PATH, "w") as file:
        file.write(with_row(text, row))
