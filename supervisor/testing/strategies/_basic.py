"""Strategies: text, JSON, names and paths."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st


def json_texts() -> st.SearchStrategy[str]:
    """Return text that JSON carries: no surrogates."""
    return st.text(st.characters(codec="utf-8"), max_size=20)


def texts(*, min_size: int = 0) -> st.SearchStrategy[str]:
    """Return text that a C string carries: no surrogates, no NULs."""
    characters = st.characters(codec="utf-8", exclude_characters="\0")
    return st.text(characters, min_size=min_size, max_size=20)


def json_scalars() -> st.SearchStrategy[Any]:
    """Return JSON values without parts, integers far beyond 64 bits among them."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**2047), 2**2047),
        st.floats(allow_nan=False, allow_infinity=False),
        json_texts(),
    )


def json_values() -> st.SearchStrategy[Any]:
    """Return any JSON values."""
    return st.recursive(
        json_scalars(),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(json_texts(), inner, max_size=4)
        ),
        max_leaves=8,
    )


def json_objects() -> st.SearchStrategy[dict[str, Any]]:
    """Return any JSON objects."""
    return st.dictionaries(json_texts(), json_values(), max_size=4)


def ids() -> st.SearchStrategy[str]:
    """Return ids of containers."""
    return st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,127}", fullmatch=True)


def absolute_paths() -> st.SearchStrategy[str]:
    """Return absolute paths, odd ones too."""
    return texts().map(lambda text: "/" + text)


def cgroup_paths() -> st.SearchStrategy[str]:
    """Return paths below the root cgroup."""
    characters = st.characters(codec="utf-8", exclude_characters="\0/")
    parts = st.text(characters, min_size=1, max_size=10).filter(
        lambda part: part not in (".", "..")
    )
    return st.lists(parts, min_size=1, max_size=4).map(lambda some: "/" + "/".join(some))
