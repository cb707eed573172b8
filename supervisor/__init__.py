"""Run and supervise OCI containers from Trio, without a daemon.

Begin with these; each has a docstring of its own, and docs/api.md lists all public names::

  Bundle.from_host(args), Bundle.from_rootfs(rootfs, args), Bundle.load(path): what to run
  run_container(bundle): run it to its end, as trio.run_process
  open_supervisor(root=None): a supervisor, whose containers live in its block, or below a root
  Supervisor.create(id, bundle): a Container: start, exec, run, wait, stop, delete
  ContainerPool(bundle): containers made ahead, to be taken for one run each
  SupervisorError: the root of all errors

For whoever changes the library: the floors of the house. A module imports only from the lines above
its own, and from those that stand before it on its line::

    _lazy                                   public names, loaded when they are used
    _status _errors _lifecycle _deadlines _backoff   words: errors, ends, states, deadlines
    _syscall _forks _real _within _threads   system calls; in which process or thread; how long
    _witness                                who looks on: a test's example
    state/                                  what is on disk
    _nursery _interrupts _points _pidfd _session _patrol _inotify _wards   processes, by descriptor
    _abandoned _temporary                   temporary directories of ours
    shim/ oci/ stdio/ cgroups/              shims, runtimes and bundles, streams, cgroups
    _host _evidence _hearing _verdict       what is known of a process, and how it ended
    _launch _delivery _task _tail _logs _process _collect   one shimmed process and its task
    _reserve _root _make _claim _dispose _core   a container's directory, its end, its inside
    _unrun                                  why a program couldn't be run
    _start _exec _end _checkpoint _create   the operations on one container
    _container                              a container, as users see it
    _adopt _discard _recovery _remains _leash      recovery, leash
    _supervisor                             the supervisor and its registry
    _run                                    a container for one run
    _entry _stock _pool                     containers made ahead, for one run each
    testing/                                for tests of programs that run containers

The public names stand in ``__init__.pyi``. Each is loaded when it is first used: a program that
only imports this package, or pytest with a plugin of it, doesn't wait for what it may never need.
"""

from . import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
