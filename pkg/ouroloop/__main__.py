"""Run an unmodified program with every event loop that asyncio makes an ouroloop.Loop.

python -m ouroloop SCRIPT [ARG...]
python -m ouroloop -m MODULE [ARG...]
"""

import io
import os
import pkgutil
import runpy
import sys
import types
from importlib.machinery import SourceFileLoader
from typing import Any

from ouroloop import install


def new_main() -> types.ModuleType:
    """Give the program a __main__ of its own, as the interpreter would."""
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = module
    return module


def run_module(name: str, args: list[str]) -> None:
    sys.argv = ["-m", *args]
    new_main()
    runpy._run_module_as_main(name)


def run_script(path: str, args: list[str]) -> None:
    sys.argv = [path, *args]
    main = new_main()
    safe_path = getattr(sys.flags, "safe_path", False)
    if os.path.isdir(path) or (not path.endswith(".py") and pkgutil.get_importer(path)):
        # A directory or an archive with a __main__.py.
        sys.path.insert(0, path)
        runpy._run_module_as_main("__main__", alter_argv=False)
        return
    file = os.path.abspath(path)
    try:
        with io.open_code(file) as stream:
            source = stream.read()
    except OSError as exc:
        reason = f"[Errno {exc.errno}] {exc.strerror}"
        print(f"{sys.executable}: can't open file {file!r}: {reason}", file=sys.stderr)
        sys.exit(2)
    if not safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    main.__file__ = file
    if sys.version_info < (3, 15):
        main.__cached__ = None
    loader: Any = SourceFileLoader("__main__", file)
    main.__loader__ = loader
    exec(compile(source, file, "exec", dont_inherit=True), main.__dict__)


def without_our_frames(exc: BaseException) -> BaseException:
    """Cut the exception's traceback to what plain Python would show of it."""
    kept = entry = exc.__traceback__
    while entry is not None:
        if entry.tb_frame.f_code.co_filename == __file__:
            kept = entry.tb_next
        entry = entry.tb_next
    return exc.with_traceback(kept)


def main(argv: list[str]) -> None:
    is_module = argv[:1] == ["-m"] and len(argv) > 1
    if not is_module and (not argv or argv[0].startswith("-")):
        print(__doc__, file=sys.stderr)
        sys.exit(0 if argv in (["-h"], ["--help"]) else 2)
    install()
    try:
        if is_module:
            run_module(argv[1], argv[2:])
        else:
            run_script(argv[0], argv[1:])
    except BaseException:
        hook = sys.excepthook
        sys.excepthook = lambda kind, exc, _: hook(kind, without_our_frames(exc), exc.__traceback__)
        raise


if __name__ == "__main__":
    main(sys.argv[1:])
