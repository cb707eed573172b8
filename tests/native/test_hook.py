"""The program that runs a bundle's hooks: the directory and the state that the hooks find."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.native.programs import Programs

BUNDLE = '"/the/user\'s \\"bundle\\""'

STATES = [
    ('{"bundle":"/ours"}', '{"bundle":@}'),
    (
        '{ "id" : "x", "bundle" :\n "/o\\"u\\\\" , "pid": 1}',
        '{ "id" : "x", "bundle" :\n @ , "pid": 1}',
    ),
    (
        '{"annotations":{"bundle":"/mine"},"a":["bundle","x"],"b":"bundle","bundle":"/o","c":"/o"}',
        '{"annotations":{"bundle":"/mine"},"a":["bundle","x"],"b":"bundle","bundle":@,"c":"/o"}',
    ),
    ('{"a":"}{","\\"bundle":"no","bundle":"/o"}', '{"a":"}{","\\"bundle":"no","bundle":@}'),
    ('{"bundle":null,"other":"/o"}', '{"bundle":null,"other":"/o"}'),
    ('{"id":"' + "x" * 200_000 + '","bundle":"/o"}', '{"id":"' + "x" * 200_000 + '","bundle":@}'),
    ('{"bundle":"/cut', '{"bundle":@'),
    ("no json", "no json"),
    ("", ""),
]


def run(programs: Programs, *words: str, state: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [programs.hook, *words],
        input=state,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=programs.environment,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(("state", "told"), STATES)
def test_the_state(programs: Programs, tmp_path: Path, state: str, told: str) -> None:
    """The state names another bundle; all else is unchanged, to the letter."""
    done = run(programs, "", "/", BUNDLE, "/bin/cat", "cat", state=state, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == told.replace("@", BUNDLE)


def test_the_directory(programs: Programs, tmp_path: Path) -> None:
    """The hook runs in the user's bundle, from anywhere or from ours only, if that directory
    exists."""
    home, ours = tmp_path / "home", tmp_path / "ours"
    home.mkdir()
    ours.mkdir()
    gone = str(tmp_path / "gone")
    for source, target, cwd, found in (
        ("", str(home), tmp_path, home),
        (str(ours), str(home), ours, home),
        (str(ours), str(home), tmp_path, tmp_path),
        ("", gone, ours, ours),
        (gone, str(home), ours, ours),
    ):
        done = run(programs, source, target, '""', "/bin/pwd", "pwd", state="{}", cwd=cwd)
        assert done.stdout == f"{found}\n"


def test_the_program(programs: Programs, tmp_path: Path) -> None:
    """The program becomes the hook, with the hook's words and exit status; a missing hook is
    named."""
    script = 'printf "%s|" "$0" "$@"; exit 7'
    done = run(
        programs, "", "/", '""', "/bin/sh", "sh", "-c", script, "a b", "", state="", cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (7, "a b||")
    done = run(programs, "", "/", '""', "/no/such", "such", state="", cwd=tmp_path)
    assert done.returncode == 127
    assert done.stderr == "cannot run the hook /no/such: No such file or directory\n"
    assert run(programs, "", "/", '""', state="", cwd=tmp_path).returncode == 2


def test_json_in_json(programs: Programs, tmp_path: Path) -> None:
    """The inserted bundle is one JSON string, whatever characters the path has."""
    path = '/a"b\\c\nd\u2028é'
    state = json.dumps({"bundle": "/o", "id": "x"})
    done = run(programs, "", "/", json.dumps(path), "/bin/cat", "cat", state=state, cwd=tmp_path)
    assert json.loads(done.stdout) == {"bundle": path, "id": "x"}
