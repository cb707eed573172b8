"""What the tests of loading and dumping share."""

from __future__ import annotations

import json
from typing import Any

import pytest

from supervisor.state import ContainerRecord, ProcessRecord, Result, dump
from supervisor.state._codec import loads
from supervisor.values._errors import StateCorrupt
from tests.state.samples import SAMPLES

Record = ContainerRecord | ProcessRecord | Result
CLASSES = (ContainerRecord, ProcessRecord, Result)
PATH = "/boxes/web-1/some.json"

each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
each_sample = pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: type(s).__name__)


def loads_or_corrupt(cls: type[Any], data: bytes) -> Record | None:
    """Load ``data``; None if refused, by a StateCorrupt with the path and a reason."""
    try:
        record: Record = loads(cls, data, path=PATH)
    except StateCorrupt as error:
        assert error.path == PATH
        assert error.reason
        assert str(error) == f"{PATH}: {error.reason}"
        return None
    assert type(record) is cls
    return record


def reason(cls: type[Any], data: bytes | dict[str, Any]) -> str:
    """Return the reason why ``data`` is refused."""
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    with pytest.raises(StateCorrupt) as caught:
        loads(cls, data, path=PATH)
    assert caught.value.path == PATH
    return caught.value.reason


def tree_of(record: Record) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(dump(record))
    return tree


NEEDED = {
    ContainerRecord: "id root bundle runtime runtimeRoot shim timeout created cgroup bootId",
    ProcessRecord: "exec rootUID rootGID args",
    Result: "cause source",
}
