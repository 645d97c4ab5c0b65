"""The programs of examples/clients: all are in the table of `./dev clients`, and those that need
no server of Debian's run here as well, on stock asyncio and on ouroloop."""

import os

import pytest
from clients import runner

TESTED_HERE = ("aiohttp_both.py", "openssl_s_client.py", "openssl_s_server.py")


@pytest.fixture(scope="module")
def environment():
    with runner.prepared() as (_, _, variables):
        yield variables


def test_the_table_names_every_program():
    programs = {name for name in os.listdir(runner.FOLDER) if name.endswith(".py")}
    assert programs == set(runner.PROGRAMS)


@pytest.mark.parametrize("name", runner.PROGRAMS)
def test_programs_know_nothing_of_the_loop(name):
    with open(os.path.join(runner.FOLDER, name)) as file:
        text = file.read()
    assert text.count("\n") <= 140
    assert "ouroloop" not in text
    assert "import uvloop" not in text
    assert "asyncio.run(main())" in text


@pytest.mark.timeout(3 * runner.LIMIT_SECONDS)
@pytest.mark.parametrize("name", TESTED_HERE)
def test_same_as_on_stock_asyncio(name, environment):
    lacking = runner.missing(runner.PROGRAMS[name])
    if lacking:
        pytest.skip(f"missing: {'; '.join(lacking)}")
    report, well = runner.compare(name, environment)
    assert well, "\n".join(report)


def test_a_difference_is_found(environment, monkeypatch, tmp_path):
    """The comparison itself: other output, another status, a program that says nothing."""
    monkeypatch.setattr(runner, "FOLDER", str(tmp_path))
    loop = "import asyncio; module = type(asyncio.new_event_loop()).__module__"
    for name, text in {
        "output.py": f"{loop}; print(module)",
        "status.py": f"{loop}; print('same'); raise SystemExit(module != 'asyncio.unix_events')",
        "silent.py": "",
        "broken.py": "print('same'); raise SystemExit(1)",
    }.items():
        (tmp_path / name).write_text(text)
        report, well = runner.compare(name, environment)
        assert not well, name
        assert len(report) > 1, report
