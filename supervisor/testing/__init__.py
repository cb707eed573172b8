"""Tools for tests of programs that run containers. Described in docs/testing.md.

Layers. Each layer imports only from the layers above::

    _arguments          checks of arguments
    _processes _subreaper   processes as /proc shows them; orphans that become our children
    _leaks              leak_check
    _rig _checks _conformance   check_runtime: what the library needs of a runtime's command line
    _host_program       a program: the command line of `HostRuntime`
    _host_runtime       HostRuntime, FaultyRuntime, Fault
    _freezer _harm      frozen, kill_shim, fill_memory, unread: harm to a live container
    _operations         Operation: an operation on a container, as a value
    _actor _cradle      supervising programs that take commands, and the process that launches them
    _model _stage       what supervisors must show; one root and the actors that open the root
    _comparing _machine _play   SupervisorMachine, run_machine
    stateful            the names of the state machine
    strategies          Hypothesis strategies for the library's values
    _example            what the containers of one example did
    _thread             SupervisorThread: a supervisor in another thread
    _taken              TakenContainer: a container in that thread, for sync tests
    _shared_pool        SharedPool: a pool in that thread
    _profile            profile: Hypothesis's settings
    _supervised         supervised, InfrastructureFailed: for Hypothesis
    _held               a temporary directory that is removed even after a crash
    plugin              the pytest plugin

Nothing else of the library imports from here. ``__init__.pyi`` lists the names. A name is loaded at
the first use: pytest with our plugin doesn't load what no test uses, and Hypothesis, an optional
dependency, is imported only for a name that needs Hypothesis.
"""

from .. import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
