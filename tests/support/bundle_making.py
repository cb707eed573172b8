"""Helpers to make bundles and to look at them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from supervisor.bundle import Bundle
from supervisor.values._errors import BundleInvalid

Maker = Callable[..., Bundle]
"""Makes a bundle; takes the keywords that both ways of making one take."""


def mount_at(spec: dict[str, Any], destination: str) -> dict[str, Any]:
    return next(mount for mount in spec["mounts"] if mount["destination"] == destination)


def namespaces(spec: dict[str, Any]) -> set[str]:
    return {entry["type"] for entry in spec["linux"]["namespaces"]}


def write(bundle: Path, config: Any) -> None:
    """Write a config.json."""
    (bundle / "config.json").write_text(json.dumps(config))


def load_error(bundle: Path, config: Any) -> BundleInvalid | None:
    """Load a config.json; any exception but BundleInvalid fails the test."""
    write(bundle, config)
    try:
        loaded = Bundle.load(bundle)
    except BundleInvalid as error:
        return error
    assert loaded.spec == config
    return None
