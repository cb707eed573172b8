"""A supervisor that is cancelled from outside keeps its tasks until the containers are deleted."""

from __future__ import annotations

import trio

from supervisor import State
from tests.conftest import MakeBundle, OpenSupervisor

PATIENCE_SECONDS = 30.0


async def test_the_end_is_seen(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A delete in a cancelled supervisor sees the exit status that it waits for.

    The cancellation once reached the tasks that watch the processes too: no task saw the end, and
    each delete waited for all of ``deadlines.kill``, and for the shim's deadline.
    """
    with trio.fail_after(PATIENCE_SECONDS), trio.CancelScope() as outside:
        async with supervisor() as sup:
            async with await sup.create("a", bundle("sleep", "1000")) as box:
                await box.start()
                outside.cancel()
                await trio.sleep_forever()
    assert box.status is not None and box.status.signal == 9
    assert [change.state for change in box.history][-2:] == [State.DELETING, State.DELETED]
    assert "exited" in [change.event for change in box.history]
