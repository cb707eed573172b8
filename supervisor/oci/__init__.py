"""The OCI side: runtimes, their command lines and calls, bundles and what is in them.

Layers of the bundle half, each importing only from those above it::

    _check        checks of JSON values, and how to put them together
    _paths        paths as runtimes get them
    _ids          user-namespace ids: IdMap, UserNamespace
    _schema       what a config.json must look like
    _mounts       Mount, and the mounts that every container gets
    _init         the static init for ``init=True``
    _ranges       ids of the host that containers may have
    _rootless     user namespaces, for those who aren't root
    _userns       which user namespace, in the caller's words
    _layer        a writable layer for each container
    _stop         how a container wants to be asked to end
    _seccomp      which system calls there are for it
    _privileges   its capabilities and resource limits
    _users        who a program runs as
    _swap         whether swap can be limited
    _arguments    the arguments of from_rootfs and from_host
    _secrets      what of the host isn't for everybody
    _host         the host's programs as a root filesystem
    _spec         compose config.json
    _hooks        a bundle's hooks, which find the bundle
    _gate         the gate of a pooled container, and what it is told
    _load         read and check config.json
    _submounts    what is mounted inside of a root filesystem
    _tree         where a path of a container leads
    _program      why a program can't be run in it
    _directory    where a bundle is written
    _bundle       Bundle

Layers of the runtime half::

    _runtime      Runtime: which one
    _bpf          compile a seccomp profile
    _filter       give crun the compiled one
    _sealed       copies of runtimes that needn't copy themselves
    _command      its command lines
    _said         what it said, for people
    _call         call it, with a deadline
    _ask          ask it for a state; what CRIU said
    _exec         the process object of an exec
"""

from ._arguments import check_absolute, check_args, check_env
from ._ask import ask_bundle, ask_status, criu_said
from ._bundle import Bundle
from ._call import call, failure, fresh_log
from ._command import Caller, checkpoint_options, log_of, words_of
from ._exec import exec_process, init_process
from ._filter import for_runtime
from ._gate import GATE_DESTINATION, FileContent, Gate, frame, gate_path, with_gate
from ._ids import IdMap, UserNamespace, container_root_ids
from ._init import behind_init, can_tell, is_ours, status_fd, telling
from ._layer import Layer, wants_layer
from ._load import read_config
from ._mounts import Mount, MountArgument
from ._privileges import (
    Privileges,
    RlimitArgument,
    attainable,
    check_attainable,
    check_privileges,
    with_privileges,
)
from ._program import Obstacle, obstacle
from ._runtime import CANDIDATES, Runtime
from ._said import reason_in
from ._sealed import SealedPrograms
from ._seccomp import SeccompArgument
from ._spec import derive_spec
from ._stop import SignalArgument, StopWish, check_stop, check_stop_signal, is_grace, stop_of
from ._submounts import MountTable
from ._tree import LiveTree, PlannedTree
from ._userns import UserNamespaceArgument, check_user, namespace_of, of_block, wish_of
from ._users import (
    Account,
    GroupArgument,
    GroupsArgument,
    UserArgument,
    check_account,
    find_account,
)

__all__ = [
    "CANDIDATES",
    "GATE_DESTINATION",
    "Account",
    "Bundle",
    "Caller",
    "FileContent",
    "Gate",
    "GroupArgument",
    "GroupsArgument",
    "IdMap",
    "Layer",
    "LiveTree",
    "Mount",
    "MountArgument",
    "MountTable",
    "Obstacle",
    "PlannedTree",
    "Privileges",
    "RlimitArgument",
    "Runtime",
    "SealedPrograms",
    "SeccompArgument",
    "SignalArgument",
    "StopWish",
    "UserArgument",
    "UserNamespace",
    "UserNamespaceArgument",
    "ask_bundle",
    "ask_status",
    "attainable",
    "behind_init",
    "call",
    "can_tell",
    "check_absolute",
    "check_account",
    "check_args",
    "check_attainable",
    "check_env",
    "check_privileges",
    "check_stop",
    "check_stop_signal",
    "check_user",
    "checkpoint_options",
    "container_root_ids",
    "criu_said",
    "derive_spec",
    "exec_process",
    "failure",
    "find_account",
    "for_runtime",
    "frame",
    "fresh_log",
    "gate_path",
    "init_process",
    "is_grace",
    "is_ours",
    "log_of",
    "namespace_of",
    "obstacle",
    "of_block",
    "read_config",
    "reason_in",
    "status_fd",
    "stop_of",
    "telling",
    "wants_layer",
    "wish_of",
    "with_gate",
    "with_privileges",
    "words_of",
]
