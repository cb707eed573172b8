"""The fixtures for bundles, and a check that no temporary bundle is left."""

from __future__ import annotations

from tests.support.bundle_fixtures import (
    as_root,
    as_somebody,
    bundle,
    busybox,
    make,
    rootfs,
    runner,
    runtime,
    temporary,
)

__all__ = [
    "as_root",
    "as_somebody",
    "bundle",
    "busybox",
    "make",
    "rootfs",
    "runner",
    "runtime",
    "temporary",
]
