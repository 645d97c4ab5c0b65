"""The projects whose suites run: what pyproject.toml's groups `suite-*` do not say of them."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Project:
    # Of the sdist on PyPI, whose version is the one that the group installs.
    sha256: str
    # What is unpacked of the sdist. The package itself comes from its wheel, as users have it.
    files: tuple
    # Options of pytest, in the place of the project's own `addopts`, which ask for several
    # processes, for coverage and for plugins that compare nothing.
    options: tuple = ()
    # Whether its tests start a server that refuses to be root.
    unprivileged: bool = False


PROJECTS = {
    "aiohttp": Project(
        "5558a7f5a05af9ecf744af91e5baefc436f93c9333e656c27ec253f9a6bbe178",
        ("tests", "pytest.ini"),
        # Its own option: no garbage collection after each test, which takes ten times the time.
        ("--aiohttp-fast", "-m", "not dev_mode and not autobahn and not internal"),
    ),
    "anyio": Project(
        "59bb03251907983d1603d27c3087ddb1e93299ea2163adcdba37899a4fb12ffb",
        # One of its tests installs it from here into an environment of its own.
        ("tests", "pyproject.toml", "src", "LICENSE", "PKG-INFO", "README.rst"),
        ("-p", "anyio", "-p", "pytest_mock"),
    ),
    "uvicorn": Project(
        "a2e33cbfaa0306f8e6b0c13e0cb89d7d7a2da3e62b90c66e18c33d9807b28620",
        ("tests", "pyproject.toml"),
    ),
    "asyncpg": Project(
        "45e64e56714d888330b884aad1dfb363d0bf43fb343e3d1a8968525f3bade478",
        ("tests", "pyproject.toml"),
        ("--import-mode=importlib", "--assert=plain"),
        unprivileged=True,
    ),
}
