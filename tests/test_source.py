"""The architecture as a test: what csrc/README.md promises of the C files."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
CSRC = PROJECT / "csrc"
C_FILES = sorted(CSRC.glob("*.c"))
MAP = (
    (CSRC / "ouroloop.h")
    .read_text()
    .replace('#include "transport.h"', (CSRC / "transport.h").read_text())
)

# Where a difference between versions of CPython may be told apart.
VERSION_FILES = {"compat.h", "layout.h", "registry.c"}


def without_comments(text):
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)


def sections():
    """The files of ouroloop.h in their order, each with the functions it offers."""
    found = {}
    parts = re.split(r"^/\* (\w+\.c) -- ", MAP, flags=re.MULTILINE)
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        found[name] = set(
            re.findall(r"^(?! )[\w \*]+?\b(\w+)\(", without_comments("/*" + text), re.MULTILINE)
        )
    return found


def functions(text):
    """The functions defined in a C file, as (name, body)."""
    pattern = r"^(\w+)\([^;{]*?\)\n\{\n(.*?)^\}"
    return re.findall(pattern, text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", C_FILES, ids=lambda path: path.name)
def test_one_file_is_one_subject(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 900
    assert text.startswith("/*"), "a file begins with what it is about"
    own_headers = re.findall(r'#include "(\w+\.h)"', text)
    assert own_headers in (["ouroloop.h"], ["args.h"])


@pytest.mark.parametrize("path", C_FILES, ids=lambda path: path.name)
def test_each_file_is_on_the_map_and_has_its_tests(path):
    on_the_map = f"`{path.name}`" in (CSRC / "README.md").read_text()
    assert on_the_map
    if path.name != "module.c":
        assert (PROJECT / "tests" / f"test_{path.stem}.py").exists()


def test_what_the_map_names_is_there():
    named = re.findall(r"`(\w+\.c):(\w+)`", (CSRC / "README.md").read_text())
    assert named
    for name, function in named:
        # Inline functions stand in the header, in the section of their file.
        section = MAP.partition(f"/* {name} -- ")[2].partition(".c -- ")[0]
        own = functions((CSRC / name).read_text()) + functions(section)
        assert function in dict(own), f"{name} has no {function}()"


def test_versions_are_told_apart_in_few_files():
    users = {
        path.name
        for path in CSRC.glob("*.[ch]")
        if re.search(r"PY_VERSION_HEX|UV_VERSION_HEX", without_comments(path.read_text()))
    }
    assert users <= VERSION_FILES


@pytest.mark.parametrize("path", C_FILES, ids=lambda path: path.name)
def test_callbacks_of_libuv_take_the_gil_first(path):
    for name, body in functions(without_comments(path.read_text())):
        if name.startswith("on_") and name != "on_before_poll":
            statements = [line for line in body.splitlines() if line.strip()]
            while re.match(r"\s+[\w ]+ \**\w+(\[\w+\])?( = .*|,.*)?;?$", statements[0]) or re.match(
                r"\s{8,}", statements[0]
            ):
                assert "Loop_enter(" not in statements[0]
                statements.pop(0)
            assert "Loop_enter(" in statements[0], f"{name}: {statements[0]}"


def test_a_file_calls_only_files_above_it():
    offered = sections()
    order = list(offered)
    wrong = []
    for position, name in enumerate(order):
        text = without_comments((CSRC / name).read_text())
        for below in order[position + 1 :]:
            for function in offered[below] - {"Loop_check", "Loop_setattro"}:
                if re.search(rf"\b{function}\(", text):
                    wrong.append(f"{name} calls {function}() of {below}")
    assert wrong == []


def test_every_shared_function_is_used_elsewhere():
    unused = []
    for name, offered in sections().items():
        others = "".join(
            without_comments(path.read_text())
            for path in CSRC.glob("*.[ch]")
            if path.name not in (name, "ouroloop.h", "transport.h")
        )
        inline = "".join(re.findall(r"static inline.*?^}", MAP, re.MULTILINE | re.DOTALL))
        for function in offered:
            made_by_macro = function.endswith(("_setup_type", "_setup"))
            if not made_by_macro and not re.search(rf"\b{function}\b", others + inline):
                unused.append(f"{name}: {function}")
    assert unused == []


def test_no_static_objects():
    for path in C_FILES:
        text = without_comments(path.read_text())
        assert not re.search(r"^static PyObject \*\w+( = [^;]*)?;", text, re.MULTILINE), path.name
        assert "PyGILState_" not in text, path.name
