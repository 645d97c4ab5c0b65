"""Build ouroloop._core from csrc/ on the system's libuv.

The environment chooses the build:
OUROLOOP_DEBUG=1      hardly optimised, with assertions and debug information
OUROLOOP_SANITIZE=L   with -fsanitize=L (address,undefined or thread) and all of the above
OUROLOOP_COVERAGE=1   counts executed lines for gcov
OUROLOOP_WERROR=1     a compiler warning stops the build
CC, CFLAGS, LDFLAGS and PKG_CONFIG mean what they mean elsewhere; an -O in CFLAGS replaces -O3.
"""

import json
import os
import shlex
import shutil
import subprocess
import sysconfig
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

LIBUV = "libuv >= 1.44"

INSTALL_HELP = """\
ouroloop is compiled from C when it is installed, and this machine lacks: {missing}.
Install what it needs, then try again:
  Debian, Ubuntu   apt install gcc libc6-dev pkg-config libuv1-dev python3-dev
  Fedora           dnf install gcc pkgconf-pkg-config libuv-devel python3-devel
  Alpine           apk add gcc musl-dev pkgconf libuv-dev python3-dev
  macOS            xcode-select --install; brew install pkgconf libuv"""


def compile_flags() -> list[str]:
    flags = ["-std=c11", "-fvisibility=hidden", "-Wall", "-Wextra"]
    # Initialisers leave fields out on purpose, and CPython's method tables cast functions.
    flags += ["-Wno-missing-field-initializers", "-Wno-cast-function-type"]
    sanitize = os.environ.get("OUROLOOP_SANITIZE")
    coverage = os.environ.get("OUROLOOP_COVERAGE")
    if sanitize:
        flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"]
    if coverage:
        flags += ["--coverage"]
    if sanitize or coverage or os.environ.get("OUROLOOP_DEBUG"):
        flags += ["-O1", "-g3", "-UNDEBUG"]
    elif "-O" not in os.environ.get("CFLAGS", ""):
        flags += ["-O3"]
    if os.environ.get("OUROLOOP_WERROR"):
        flags += ["-Werror"]
    return flags


def link_flags(compiling: list[str]) -> list[str]:
    return [flag for flag in compiling if flag.startswith(("-fsanitize", "--coverage"))]


def c_string(flags: list[str]) -> str:
    """What build_info() reports of them: all that change the machine code."""
    return json.dumps(" ".join(flag for flag in flags if not flag.startswith("-W")))


class BuildExt(build_ext):
    """Looks for the tools only when it compiles, so that an sdist can be made without them."""

    def build_extensions(self) -> None:
        self.stop_if_something_is_missing()
        core = self.extensions[0]
        core.extra_compile_args += self.pkg_config("--cflags")
        core.extra_link_args += self.pkg_config("--libs")
        super().build_extensions()

    def pkg_config(self, *query: str) -> list[str]:
        command = [os.environ.get("PKG_CONFIG", "pkg-config"), *query, LIBUV]
        return shlex.split(subprocess.check_output(command, text=True))

    def stop_if_something_is_missing(self) -> None:
        missing = []
        if shutil.which(self.compiler.compiler_so[0]) is None:
            missing.append(f"a C compiler ({self.compiler.compiler_so[0]})")
        if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
            missing.append("Python's C headers (Python.h)")
        try:
            self.pkg_config("--exists")
        except FileNotFoundError:
            missing.append(f"pkg-config, which finds {LIBUV}")
        except subprocess.CalledProcessError:
            missing.append(LIBUV)
        if missing:
            raise SystemExit(INSTALL_HELP.format(missing="; ".join(missing)))


flags = compile_flags()
setup(
    cmdclass={"build_ext": BuildExt},
    ext_modules=[
        Extension(
            "ouroloop._core",
            sources=sorted(glob("csrc/*.c")),
            depends=sorted(glob("csrc/*.h")),
            define_macros=[("OUROLOOP_BUILD_FLAGS", c_string(flags))],
            extra_compile_args=flags,
            extra_link_args=link_flags(flags),
        )
    ],
)
