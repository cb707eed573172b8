"""The registry: what is known of an id, whatever comes while a container of the id is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor import CleanupIncomplete, ContainerExists
from supervisor._registry import Failed, Making, Registry
from supervisor.observers import Gone

LEFT = CleanupIncomplete("left", seconds=1.0, container="a")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(str(tmp_path))


def test_an_id_is_taken_while_a_container_is_made(registry: Registry) -> None:
    """An id is taken from the beginning of a create to the end; then the id is free, or another
    entry's."""
    with registry.making("a"):
        assert isinstance(registry.get("a"), Making)
        with pytest.raises(ContainerExists, match="already"), registry.making("a"):
            raise AssertionError("made twice")
        assert isinstance(registry.get("a"), Making)
    assert registry.get("a") is None
    with registry.making("a"):
        pass


def test_a_create_that_cannot_be_undone_is_listed(registry: Registry) -> None:
    """The end of a failed create keeps the broken entry that the clean-up made."""
    with registry.making("a"):
        registry.note_gone(Gone("a", LEFT))
    entry = registry.get("a")
    assert isinstance(entry, Failed) and entry.core is None
    assert registry.broken["a"].reason == str(LEFT)
    with pytest.raises(ContainerExists, match="broken"), registry.making("a"):
        raise AssertionError("made again")
    registry.forget_deleted()  # there are no files of one
    assert registry.get("a") is None


def test_an_adoption_that_deletes_leaves_what_is_made(registry: Registry) -> None:
    """An adoption may finish the delete of an earlier container while another one is made."""
    with registry.making("a"):
        registry.note_gone(Gone("a", None))
        assert isinstance(registry.get("a"), Making)


def test_only_a_broken_one_is_forgotten(registry: Registry) -> None:
    """Only a broken entry is forgotten: a repaired one is broken no more, and one that is being
    made wasn't broken."""
    with registry.making("a"):
        registry.forget_broken("a")
        assert isinstance(registry.get("a"), Making)
    registry.note_gone(Gone("a", LEFT))
    registry.forget_broken("a")
    assert registry.get("a") is None and registry.broken == {}
