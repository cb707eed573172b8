"""The fixtures for bundles."""

from __future__ import annotations

from tests.support.bundle_fixtures import *  # noqa: F403
