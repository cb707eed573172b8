"""Names and paths below a root, and ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.state import ContainerLayout, ProcessLayout, RootLayout, check_exec_id, check_id
from supervisor.state._ids import RESERVED
from supervisor.testing.strategies import ids
from supervisor.values._errors import InvalidValue
from tests.support.settings import THOROUGH


def test_the_paths_are_those_of_the_design() -> None:
    """The names on disk are a promise: other programs look there."""
    root = RootLayout("/r")
    box = root.container("web-1")
    init = box.init
    assert root.runtime_root == "/r/.runtime"
    assert (box.path, box.id) == ("/r/web-1", "web-1")
    assert (box.lock, box.state) == ("/r/web-1/lock", "/r/web-1/state.json")
    assert (box.bundle, box.config) == (
        "/r/web-1/bundle",
        "/r/web-1/bundle/config.json",
    )
    assert box.logs == "/r/web-1/logs"
    assert box.cleanup == "/r/web-1/cleanup"
    assert (init.path, init.id) == ("/r/web-1/init", "init")
    assert init.record == "/r/web-1/init/process.json"
    assert init.exit_status == "/r/web-1/init/exitStatus"
    assert init.result == "/r/web-1/init/result.json"
    assert init.log("create") == "/r/web-1/init/log-create.json"
    assert init.shim_log == "/r/web-1/init/shim-log.json"
    plain = "pid starttime shim exit control stdin stdout stderr lock started"
    for name in plain.split():
        assert getattr(init, name) == f"/r/web-1/init/{name}"


def test_init_and_execs_are_processes() -> None:
    """Init is a process like the execs, under a name that no exec can have."""
    box = ContainerLayout("/r/web-1")
    assert box.process("init") == box.init
    assert box.process("e1") == ProcessLayout("/r/web-1/e1")


@pytest.mark.parametrize("id", sorted(RESERVED - {"init"}))
def test_an_exec_can_not_have_a_name_of_the_directory(id: str) -> None:
    """An exec called ``bundle`` would land in the bundle."""
    with pytest.raises(InvalidValue, match="exec id"):
        check_exec_id(id)
    with pytest.raises(InvalidValue, match="exec id"):
        ContainerLayout("/r/web-1").process(id)


def test_an_exec_can_not_be_init() -> None:
    """Init's directory is made once."""
    with pytest.raises(InvalidValue, match="exec id"):
        check_exec_id("init")


def test_every_name_in_a_container_directory_is_reserved() -> None:
    """A name that the layout uses beside execs can't be missing from the reserved ones."""
    box = ContainerLayout("/r/web-1")
    used = [
        box.lock,
        box.state,
        box.bundle,
        box.logs,
        box.cleanup,
        box.init.path,
    ]
    assert {Path(path).name for path in used} <= RESERVED


BAD_IDS = [
    "", ".", "..", ".a", "-a", "_a", "+a", "a/b", "/", "a b", "a\n", "\n", "a\0", "é", "ａ", "a:b",
    "a" * 129, "a@b", "~", "a\udc80", None, 5, b"a", ["a"],
]  # fmt: skip


@pytest.mark.parametrize("id", BAD_IDS, ids=repr)
def test_what_is_no_id(id: Any) -> None:
    """A string that isn't fit for a file name, an argument and a cgroup's name is refused as an
    id."""
    with pytest.raises(InvalidValue, match="container id"):
        check_id(id)
    with pytest.raises(InvalidValue, match="container id"):
        RootLayout("/r").container(id)
    with pytest.raises(InvalidValue, match="exec id"):
        check_exec_id(id)
    with pytest.raises(InvalidValue, match="exec id"):
        ContainerLayout("/r/a").process(id)


@pytest.mark.parametrize("id", ["a", "0", "Z", "a" * 128, "a.b_c+d-e", "state.json", "init", "a.."])
def test_what_is_an_id(id: str) -> None:
    """Containers may be called like files in a container."""
    assert check_id(id) == id


def test_a_wrong_id_is_called_what_it_should_be() -> None:
    """The message names the thing and the value."""
    with pytest.raises(InvalidValue, match=r"^pool name 'a b' must be 1 to 128 of"):
        check_id("a b", "pool name")


@THOROUGH
@given(id=ids())
def test_an_id_is_one_name_below_the_root(id: str) -> None:
    """No id leads out of the root or deeper into the root, and each path leads back to the id."""
    box = RootLayout("/r").container(id)
    assert Path(box.path).parent == Path("/r")
    assert box.id == id


@THOROUGH
@given(text=st.text(max_size=5))
def test_any_text_is_an_id_or_refused(text: str) -> None:
    """An accepted id is ASCII without slashes and doesn't begin with a dot or a dash."""
    try:
        check_id(text)
    except InvalidValue:
        return
    assert text.isascii()
    assert "/" not in text
    assert text[0] not in ".-"


# ---- what is there ---------------------------------------------------------------


def test_containers_are_directories_named_by_ids(tmp_path: Path) -> None:
    """Temporary directories, runtimes' state, files and links are no containers."""
    for name in ("web-2", "web-1", ".runtime", ".tmp-web-3", "no id", "lost:found"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "web-1")
    root = RootLayout(str(tmp_path))
    assert list(root.containers()) == [root.container("web-1"), root.container("web-2")]


def test_processes_are_init_and_execs(tmp_path: Path) -> None:
    """The container's own directories are no processes."""
    for name in (
        "init",
        "e2",
        "e1",
        ".tmp-e3",
        *sorted(RESERVED - {"init", "lock", "state.json"}),
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "lock").touch()
    (tmp_path / "state.json").touch()
    box = ContainerLayout(str(tmp_path))
    assert [process.id for process in box.processes()] == ["e1", "e2", "init"]


def test_what_is_gone_holds_nothing(tmp_path: Path) -> None:
    """A container that another supervisor deletes meanwhile is no error."""
    assert list(RootLayout(str(tmp_path / "gone")).containers()) == []
    assert list(ContainerLayout(str(tmp_path / "gone")).processes()) == []


def test_a_root_that_is_no_directory_is_an_error(tmp_path: Path) -> None:
    """Only what is missing is empty."""
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        list(RootLayout(str(tmp_path / "file")).containers())
