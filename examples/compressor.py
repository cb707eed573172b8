"""A property of a real program: what ``gzip`` packs, Python's own ``gzip`` unpacks to the same.

Every example runs in a fresh container from a pool, which makes the next containers meanwhile.

Run this as ``pytest examples/compressor.py``, or as ``python examples/compressor.py [EXAMPLES]``,
which prints the number of examples per minute.
"""

from __future__ import annotations

import gzip
import sys
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor import Bundle
from supervisor.testing import SharedPool, profile

contents = st.binary(max_size=1000) | st.builds(bytes.__mul__, st.binary(), st.integers(0, 100))


@given(content=contents, level=st.integers(1, 9))
def test_round_trip(container_pool: SharedPool, content: bytes, level: int) -> None:
    """Packed data comes out unchanged."""
    packed = container_pool.run_sync(["gzip", f"-{level}"], stdin=content)
    assert gzip.decompress(packed.stdout or b"") == content


def main(examples: int) -> None:
    """Run the test without pytest, and print how long the run took."""
    search = settings(profile(database=None), max_examples=examples)
    with SharedPool(Bundle.from_host(["true"]), size=4) as pool:
        begun = time.perf_counter()
        search(test_round_trip)(pool)
        seconds = time.perf_counter() - begun
    print(f"{examples} examples in {seconds:.1f} s: {examples / seconds * 60:.0f} a minute")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 25)
