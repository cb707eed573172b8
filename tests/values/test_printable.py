"""How an error shows text from outside."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor import Holder, RuntimeFailed, SupervisorError


@given(st.text())
def test_no_control_characters(text: str) -> None:
    """A program's ESC, line ends and bidi overrides stood raw in what terminals show."""
    failed = RuntimeFailed(text, command=["x"], returncode=1, reason=text)
    for shown in (str(SupervisorError(text)), str(failed), failed.reason):
        assert shown.isprintable()


def test_printable_text_stays() -> None:
    """Visible text of any language is unchanged."""
    assert str(SupervisorError("Größe 大きさ")) == "Größe 大きさ"
    assert str(SupervisorError("\x1b[2J\n\u202e")) == "\\x1b[2J\\n\\u202e"


def test_the_name_of_who_holds_a_stream() -> None:
    """The name that a program has chosen is shown escaped."""
    assert (
        str(Holder(stream="stdout", pid=7, program="\x1b[31m\n")) == "stdout: \\x1b[31m\\n (pid 7)"
    )
