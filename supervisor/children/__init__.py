"""Child processes, each held by a descriptor: spawned, signalled, waited for and reaped."""

from ._patrol import (
    Patrol,
)
from ._pidfd import (
    PidFd,
)
from ._session import (
    kill_others,
)
from ._wards import (
    Wards,
    is_left_to_us,
    let_go,
    reap_let_go,
)

__all__ = [
    "Patrol",
    "PidFd",
    "Wards",
    "is_left_to_us",
    "kill_others",
    "let_go",
    "reap_let_go",
]
