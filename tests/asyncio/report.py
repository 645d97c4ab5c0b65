"""Print the counts that ./dev compatibility took on several Pythons, or put them into a document.

python tests/asyncio/report.py DIRECTORY [DOCUMENT]

The directory has for each version, 3.11 say, 3.11.cpython.json and 3.11.fuzz.json, as run.py and
fuzz.py wrote them, and 3.11.plugin.xml, as pytest --junit-xml wrote it.
"""

import json
import os
import re
import sys
from xml.etree import ElementTree

from expected import EXPECTED

CPYTHON = {
    "modules": "modules",
    "run": "tests run",
    "passed": "passed",
    "skipped": "skipped",
    "excepted": "excepted",
    "failed": "failed",
}
PLUGIN = {"run": "tests run", "passed": "passed", "skipped": "skipped", "failed": "failed"}
FUZZ = {"programs": "programs", "differences": "differences"}
BEGIN, END = "<!-- {}: begin -->", "<!-- {}: end -->"


def counted(directory, ending, read):
    """What each file with that ending says, by version, oldest first."""
    names = (name.removesuffix(ending) for name in os.listdir(directory) if name.endswith(ending))
    versions = sorted(names, key=lambda version: [int(part) for part in version.split(".")])
    return {version: read(os.path.join(directory, version + ending)) for version in versions}


def read_json(path):
    with open(path) as file:
        return json.load(file)


def read_junit(path):
    suite = ElementTree.parse(path).getroot().find("testsuite")
    run, skipped = int(suite.get("tests")), int(suite.get("skipped"))
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    return {"run": run, "passed": run - skipped - failed, "skipped": skipped, "failed": failed}


def totals(run):
    counts = list(run["modules"].values())
    sums = {key: sum(count[key] for count in counts) for key in CPYTHON if key != "modules"}
    # A test that fails on stock asyncio as well is a failure here.
    sums["failed"] += sum(count["failed on asyncio"] for count in counts)
    return {"modules": len(counts), **sums}


def line(cells):
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def table(columns, counts):
    rows = [line(["Python", *columns.values()]), line(["---", *["---:"] * len(columns)])]
    for version, count in counts.items():
        rows.append(line([version, *(count[key] for key in columns)]))
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
    runs = counted(directory, ".cpython.json", read_json)
    tables = {
        "cpython": table(CPYTHON, {run["python"]: totals(run) for run in runs.values()}),
        "plugin": table(PLUGIN, counted(directory, ".plugin.xml", read_junit)),
        "fuzz": table(FUZZ, counted(directory, ".fuzz.json", read_json)),
    }
    for name, text in tables.items():
        print(name, text, sep="\n", end="\n\n")
    tables["cpython"] += f"\n\n{exceptions()}\n\n{modules(runs.values())}"
    for path in documents:
        with open(path) as file:
            document = file.read()
        for name, text in tables.items():
            document = replace(document, name, text)
        with open(path, "w") as file:
            file.write(document)


if __name__ == "__main__":
    main()
