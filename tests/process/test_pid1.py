"""When a process with pid 1 hears a signal."""

from __future__ import annotations

import pytest

from supervisor import PIPE
from tests.conftest import MakeBundle, OpenSupervisor

pytestmark = pytest.mark.runtimes("fake")


async def _stop_one_that_listens(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Stop a container whose program has a handler, and needn't be killed."""
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"
    async with supervisor() as sup:
        async with await sup.create("a", bundle("sh", "-c", script), stdout=PIPE) as a:
            await a.start()
            assert a.stdout is not None
            assert await a.stdout.receive_some() == b"ready\n"
            stopped = await a.stop(grace=20)
            assert (stopped.escalated, stopped.status.code) == (False, 7)


async def test_stop_asks_when_it_is_heard(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop sends the signal when the program has a handler: before, pid 1 would drop the
    signal."""
    answers, asked = [False, False, True], 0

    def hears(*_: object, **__: object) -> bool:
        nonlocal asked
        asked += 1
        return answers[min(asked, len(answers)) - 1]

    monkeypatch.setattr("supervisor.process._gate.would_act_on", hears)
    await _stop_one_that_listens(supervisor, bundle)
    assert asked == len(answers)


@pytest.mark.parametrize("answers", [[*[None] * 6, False, True], [None] * 7, [None, True]])
async def test_stop_asks_who_blocks_it_after_a_while(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[bool | None],
) -> None:
    """A stop waits while the program blocks all signals, as at its start: once the signal came
    then, was dropped a moment later, and the program was killed after the grace."""
    left = iter(answers)
    monkeypatch.setattr("supervisor.process._gate.would_act_on", lambda *_, **__: next(left))
    await _stop_one_that_listens(supervisor, bundle)
    assert list(left) == []
