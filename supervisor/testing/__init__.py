"""For tests of programs that run containers. Described in docs/testing.md.

Layers, each importing only from those above it::

    _arguments          what the arguments must be
    _processes _subreaper   processes as /proc shows them; orphans that are left to us
    _leaks              leak_check
    _rig _checks _conformance   check_runtime: what the library needs of a runtime's command line
    _host_program       a program: the command line that `HostRuntime` is
    _host_runtime       HostRuntime, FaultyRuntime, Fault
    _freezer _harm      frozen, kill_shim, fill_memory, unread: what is done to a live container
    _operations         Operation: what is done with containers, as a value
    _actor _cradle      supervising programs that obey, and the process that launches them
    _model _stage       what supervisors must show; one root and its actors
    _comparing _machine _play   SupervisorMachine, run_machine
    stateful            the names of the state machine
    strategies          Hypothesis strategies for the library's values
    _example            what an example's containers did, for whoever wants to know
    _thread             SupervisorThread: a supervisor in a thread of its own
    _taken              TakenContainer: a container there, for sync tests
    _shared_pool        SharedPool: a pool in one
    _profile            profile: Hypothesis's settings
    _supervised         supervised, InfrastructureFailed: for Hypothesis
    _held               a directory that goes with us
    plugin              the pytest plugin

Nothing else of the library imports from here. The names stand in ``__init__.pyi``, and each is
loaded when it is first used: pytest with our plugin doesn't wait for what it may never need, and
Hypothesis, an optional dependency, is imported when something is asked for that needs it.
"""

from .. import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
