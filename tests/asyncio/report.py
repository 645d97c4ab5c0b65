"""Print what run.py --json wrote for several Pythons, and put it into docs/compatibility.md.

python tests/asyncio/report.py DIRECTORY [DOCUMENT]
"""

import json
import os
import re
import sys

from expected import EXPECTED

COLUMNS = {
    "modules": "modules",
    "run": "tests run",
    "passed": "passed",
    "skipped": "skipped",
    "excepted": "excepted",
    "failed": "failed",
}
BEGIN, END = "<!-- {}: begin -->", "<!-- {}: end -->"


def load(directory):
    """What each file there says, by version, oldest first."""
    runs = []
    for name in os.listdir(directory):
        if name.endswith(".json"):
            with open(os.path.join(directory, name)) as file:
                runs.append(json.load(file))
    return sorted(runs, key=lambda run: [int(part) for part in run["python"].split(".")])


def line(cells):
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def table(runs):
    rows = [line(["Python", *COLUMNS.values()]), line(["---", *["---:"] * len(COLUMNS)])]
    for run in runs:
        counts = list(run["modules"].values())
        # A test that fails on stock asyncio as well is a failure here.
        totals = {
            "modules": len(counts),
            **{key: sum(count[key] for count in counts) for key in COLUMNS if key != "modules"},
        }
        totals["failed"] += sum(count["failed on asyncio"] for count in counts)
        rows.append(line([run["python"], *(totals[key] for key in COLUMNS)]))
    return "\n".join(rows)


def exceptions():
    rows = [line(["excepted test", "Python", "reason"]), line(["---"] * 3)]
    for entry in EXPECTED:
        versions = [f"{major}.{minor}" for major, minor in entry.versions]
        span = versions[0] if len(versions) == 1 else f"{versions[0]} to {versions[-1]}"
        rows.append(line([f"`{entry.module}`, `{entry.pattern}`", span, entry.reason]))
    return "\n".join(rows)


def modules(runs):
    names = sorted({name for run in runs for name in run["modules"]})
    return f"Modules: {', '.join(f'`{name}`' for name in names)}."


def replace(document, name, text):
    """The document with a new text between the two comments of this name."""
    begin, end = BEGIN.format(name), END.format(name)
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(document)) != 1:
        raise SystemExit(f"the document has not exactly one part between {begin} and {end}")
    return pattern.sub(lambda match: f"{begin}\n{text}\n{end}", document)


def main():
    directory, *documents = sys.argv[1:]
    runs = load(directory)
    print(table(runs))
    for path in documents:
        with open(path) as file:
            document = file.read()
        text = "\n\n".join((table(runs), exceptions(), modules(runs)))
        with open(path, "w") as file:
            file.write(replace(document, "cpython", text))


if __name__ == "__main__":
    main()
