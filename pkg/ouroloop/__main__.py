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

from ouroloop import install


def new_main():
    """Give the program a __main__ of its own, as the interpreter would."""
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = module
    return module


def run_module(name, args):
    sys.argv = ["-m", *args]
    new_main()
    runpy._run_module_as_main(name)


def run_script(path, args):
    sys.argv = [path, *args]
    main = new_main()
    safe_path = getattr(sys.flags, "safe_path", False)
    if os.path.isdir(path) or not path.endswith(".py") and pkgutil.get_importer(path):
        # A directory or an archive with a __main__.py.
        sys.path.insert(0, path)
        runpy._run_module_as_main("__main__", alter_argv=False)
        return
    try:
        with io.open_code(os.path.abspath(path)) as file:
            source = file.read()
    except OSError as exc:
        reason = f"[Errno {exc.errno}] {exc.strerror}"
        print(f"{sys.executable}: can't open file {os.path.abspath(path)!r}: {reason}", file=sys.stderr)
        sys.exit(2)
    if not safe_path:
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    main.__file__ = path
    main.__loader__ = SourceFileLoader("__main__", path)
    exec(compile(source, path, "exec", dont_inherit=True), main.__dict__)


def without_our_frames(traceback):
    """Return the traceback from the program's first frame on."""
    ours = {__file__, runpy.__file__, "<frozen runpy>"}
    while traceback is not None and traceback.tb_frame.f_code.co_filename in ours:
        traceback = traceback.tb_next
    return traceback


def main(argv):
    if argv[:1] == ["-m"] and len(argv) > 1:
        run, target, args = run_module, argv[1], argv[2:]
    elif argv and not argv[0].startswith("-"):
        run, target, args = run_script, argv[0], argv[1:]
    else:
        print(__doc__, file=sys.stderr)
        sys.exit(0 if argv in (["-h"], ["--help"]) else 2)
    install()
    try:
        run(target, args)
    except BaseException:
        hook = sys.excepthook
        sys.excepthook = lambda kind, exc, traceback: hook(kind, exc, without_our_frames(traceback))
        raise


if __name__ == "__main__":
    main(sys.argv[1:])
