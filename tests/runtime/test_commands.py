"""The runtime's command lines, and which runtime is chosen."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from supervisor import InvalidValue, Runtime, RuntimeNotFound
from supervisor.runtime import (
    Call,
    ContainerRuntime,
    Head,
    _container_runtime,
    _runtime,
    checkpoint_options,
)
from supervisor.runtime._runtime import why_not
from supervisor.runtime._said import pieces_of, reason_in, reason_of
from tests.support.runtimes import Choice

pytestmark = pytest.mark.rootless

words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
runtimes = st.builds(
    ContainerRuntime,
    head=st.builds(
        Head,
        path=words.map(lambda word: "/" + word),
        root=words,
        args=st.lists(words, max_size=2).map(tuple),
        container=st.just("c"),
    ),
    no_pivot=st.booleans(),
)


NOT_BUILT = {("crun", "restore"), ("crun", "checkpoint")}  # Debian 12's has no CRIU
NOT_SHOWN = {
    ("crun", "restore", "--no-pivot"),  # refused: without pivot_root it can't restore
}


def all_commands(runtime: ContainerRuntime, log: str) -> dict[str, list[str]]:
    """Return one command line of each verb that the library uses."""
    place = {"bundle": "/b", "pid_file": "/p", "console_socket": "/s", "log": log}
    options = checkpoint_options(shell_job=True)
    made = [
        runtime.create(preserve_fds=1, **place),  # type: ignore[arg-type]
        runtime.restore(image="/i", work="/w", options=options, **place),  # type: ignore[arg-type]
        runtime.exec(process="/j", pid_file="/p", console_socket="/s", log=log),
    ]

    async def note(call: Call, **_: object) -> bytes:
        made.append(call)
        return b"{}"

    async def call_all() -> None:
        await runtime.start(log=log, patience=lambda: 0)
        await runtime.status()
        await runtime.delete(log=log, has_hooks=lambda: False)
        await runtime.checkpoint(image="/i", work="/w", options=options, log=log)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_container_runtime, "run", note)
        patch.setattr(_container_runtime, "fresh_log", lambda path: path)
        trio.run(call_all)
    return {call.verb: call.words for call in made}


@given(runtimes, words)
def test_global_options_first(runtime: ContainerRuntime, log: str) -> None:
    """Every command has this order: runtime, extra arguments, --root, log options, verb, the verb's
    options, the id."""
    head = [runtime.head.path, *runtime.head.args, "--root", runtime.head.root]
    commands = all_commands(runtime, log)
    for name, command in commands.items():
        logging = [] if name == "state" else ["--log", log, "--log-format", "json"]
        begin = [*head, *logging, name]
        assert command[: len(begin)] == begin and command[-1] == "c"
    for name in ("create", "restore"):
        assert ("--no-pivot" in commands[name]) == runtime.no_pivot
    assert runtime.deletion().words == [*head, "delete", "--force", "c"]


def test_every_option_exists(choice: Choice) -> None:
    """runc and crun know every option that we give them."""
    runtime = choice.runtime()
    head = Head(path=runtime.path, root="/r", container="c")
    commands = all_commands(ContainerRuntime(head=head, no_pivot=True), "/l")
    for verb in ("kill", "pause", "resume", "list"):  # of `check_runtime`
        commands[verb] = ["--format"] if verb == "list" else []
    top = subprocess.run(
        [runtime.path, "--help"], capture_output=True, text=True, check=False
    ).stdout
    for name, command in commands.items():
        if name not in top:
            assert (choice.name, name) in NOT_BUILT
            continue
        texts = (
            top
            + subprocess.run(
                [runtime.path, name, "--help"], capture_output=True, text=True, check=False
            ).stdout
        )
        for option in (word for word in command if word.startswith("--")):
            known = option in texts or (choice.name, name, option) in NOT_SHOWN
            assert known, f"{name} has no {option}"


def test_entries_over_several_lines() -> None:
    """crun with json-c (1.28) writes its log entries over several lines: once the reason was "{
    [...] }"."""
    entries = [{"msg": msg, "level": level} for msg, level in (("no a", "error"), ("b", "debug"))]
    text = "printed\n" + "".join(json.dumps(entry, indent=2) + "\n" for entry in entries)
    assert reason_of(text.encode()) == "no a"
    assert reason_of(text.rstrip().encode()) == "no a"
    assert [piece.strip() for piece in pieces_of(text)] == [
        "printed",
        *(json.dumps(entry, indent=2) for entry in entries),
    ]
    assert list(pieces_of("{\n{\n\nx")) == ["{", "{", "", "x"]
    braces = "{\n" * 100_000
    assert "".join(f"{piece}\n" for piece in pieces_of(braces)) == braces


def test_checkpoint_options() -> None:
    """Checkpoint and restore get the options that were asked for, and no others."""
    assert checkpoint_options() == []
    assert checkpoint_options(
        tcp_established=True,
        external_unix_sockets=True,
        shell_job=True,
        file_locks=True,
        leave_running=True,
        empty_namespaces=["network"],
    ) == [
        "--tcp-established",
        "--ext-unix-sk",
        "--shell-job",
        "--file-locks",
        "--leave-running",
        "--empty-ns",
        "network",
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"level": "error", "msg": "oops"}', "oops"),
        (b'{"level": "warning", "msg": "hm"}', ""),
        (b'{"level": "error", "msg": "first"}\n{"level": "fatal", "msg": "last"}\nrubbish', "last"),
        (b'{"level": "fatal", "msg": "why"}\n{"level": "error", "msg": "so"}', "why"),
        (b'{"level": "error", "msg": "first"}\n{"level": "error", "msg": "last"}', "last"),
        (b'{"level": "error", "msg": "{\\"msg\\": \\"inner\\"}"}', "inner"),
        (b'Usage\ntime="t" level=error msg="no flag: \\"-x\\""\n', 'no flag: "-x"'),
        (b"one\ntwo\nthree\n", "one [...] three"),
        (b"\xff\xfe not json", "\ufffd\ufffd not json"),
        (b'{"level": "info", "msg": "hm"}\nfirst\nlast\n\n', "first; last"),
        (b"[1, 2]", ""),
        (b"", ""),
    ],
)
def test_the_reason(tmp_path: Path, line: bytes, said: str) -> None:
    """The error quotes the first fatal message, otherwise the last error, otherwise the end of what
    was printed."""
    log = tmp_path / "log.json"
    log.write_bytes(line)
    assert reason_in(str(log)) == said == reason_of(line)
    assert reason_in(str(tmp_path / "none")) == "" and reason_in(None) == ""


def test_the_reason_in_a_long_log(tmp_path: Path) -> None:
    """The reason is found at both ends of a long log: the first cause at the beginning, the last
    error at the end."""
    log = tmp_path / "log.json"
    noise = b'{"level": "debug", "msg": "hm"}\n' * 10_000
    fatal, error = (
        b'{"level": "%s", "msg": "%s"}\n' % both for both in ((b"fatal", b"why"), (b"error", b"so"))
    )
    log.write_bytes(fatal + noise + error)
    assert reason_in(str(log)) == "why"
    log.write_bytes(noise + error)
    assert reason_in(str(log)) == "so"


def test_verb_for_people() -> None:
    """An error names a call as people do: program and verb."""
    head = Head(path="/usr/bin/crun", root="/r", container="web")
    assert str(Call(head=head, verb="start")) == "crun start"


def test_runtime_by_name_and_path(tmp_path: Path) -> None:
    """A runtime is found by its path or by its name on PATH, and a given runtime is returned
    unchanged."""
    program = tmp_path / "myrunc"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    found = Runtime.find(program)
    assert (found.path, found.name) == (str(program), "myrunc")
    assert Runtime.find(found) is found


@pytest.mark.parametrize("name", ["no-such-runtime", "/no/such/runtime"])
def test_runtime_missing(name: str) -> None:
    """An error names a missing runtime, with how to install it."""
    with pytest.raises(RuntimeNotFound, match="install it") as caught:
        Runtime.find(name)
    assert caught.value.name == name
    assert "apt-get" not in str(caught.value)  # a name that has no package


def test_runtime_not_executable(tmp_path: Path) -> None:
    """An error says that a file can't be executed."""
    (tmp_path / "x").write_text("")
    with pytest.raises(RuntimeNotFound, match="not executable"):
        Runtime.find(tmp_path / "x")


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_runtime_bad_name(name: str) -> None:
    """A name that can't be a path is refused as a value."""
    with pytest.raises(InvalidValue):
        Runtime.find(name)


def make_programs(path: Path, *names: str) -> None:
    for name in names:
        (path / name).write_text("#!/bin/sh\n")
        (path / name).chmod(0o755)


@pytest.mark.parametrize(
    ("names", "hybrid", "chosen"),
    [
        (["crun", "runc"], False, "crun"),
        (["crun", "runc"], True, "runc"),
        (["runc", "youki"], False, "runc"),
        (["youki"], True, "youki"),
    ],
)
def test_first_that_can_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    names: list[str],
    hybrid: bool,
    chosen: str,
) -> None:
    """None picks the first of crun, runc and youki that can run here, and logs which and why."""
    make_programs(tmp_path, *names)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(
        _runtime, "why_not", lambda name: "hm" if hybrid and name == "crun" else None
    )
    with caplog.at_level("INFO", logger="supervisor"):
        assert Runtime.find().name == chosen
    assert chosen in caplog.text
    if hybrid and "crun" in names:
        assert "crun: hm" in caplog.text


def test_none_can_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no runtime can run, the error gives each one's reason."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeNotFound, match=r"crun: not on PATH; runc: .*; youki: .*Install"):
        Runtime.find()


def test_crun_on_hybrid_cgroups(tmp_path: Path) -> None:
    """crun is known not to run on hybrid cgroups, and only there; the others don't mind."""
    assert why_not("crun", cgroup_root=str(tmp_path)) is None
    (tmp_path / "unified").mkdir()
    (tmp_path / "unified/cgroup.controllers").write_text("")
    assert why_not("crun", cgroup_root=str(tmp_path)) is None
    (tmp_path / "unified/cgroup.controllers").write_text("hugetlb\n")
    assert "hybrid" in (why_not("crun", cgroup_root=str(tmp_path)) or "")
    assert why_not("runc", cgroup_root=str(tmp_path)) is None


@pytest.mark.runtimes("crun")
def test_hybrid_is_true_of_crun(tmp_path: Path) -> None:
    """What we say of crun on hybrid cgroups is what crun itself says."""
    crun = shutil.which("crun")
    if crun is None:
        pytest.skip("crun is not installed (apt-get install crun)")
    said = subprocess.run(
        [crun, "--root", str(tmp_path), "--debug", "delete", "--force", "x"],
        capture_output=True,
        text=True,
        check=False,
    ).stderr
    assert ("hybrid" in said) == (why_not("crun") is not None) or why_not("crun") is None
