"""Run and supervise OCI containers from Trio, without a daemon.

Begin with these; each has a docstring of its own, and docs/api.md lists all public names::

  Bundle.from_host(args), Bundle.from_rootfs(rootfs, args), Bundle.load(path): what to run
  run_container(bundle): run it to its end, as trio.run_process
  open_supervisor(root=None): a supervisor, whose containers live in its block, or below a root
  Supervisor.create(id, bundle): a Container: start, exec, run, wait, stop, delete
  ContainerPool(bundle): containers made ahead, to be taken for one run each
  SupervisorError: the root of all errors

For contributors, the floors of the house. A package imports only from those above it here, and
from each only what its ``__init__`` gives. Inside of a package there are no circles::

    values                pure: errors, exit statuses, states, deadlines
    system                Linux: descriptors, files, locks, /proc
    native                the C programs
    tasks                 Trio: deadlines, threads, Ctrl-C, forked children
    state children        what is on disk; child processes, by descriptor
    cgroups directories   cgroups; roots and temporary directories
    userns spec rootfs    parts of a config.json; root filesystems
    bundle                bundles
    runtime               calls of the OCI runtime
    shim stdio            the shim's protocol; standard streams, terminals, logs
    process               one shimmed process and its task
    running               a program that is run to its end
    container             one container: each operation is a module
    recovery              adoption of what earlier supervisors left
    _leash _registry      the leash and the keeper; which containers there are
    _adoptions            one adoption after the other
    _supervisor _open     the supervisor, and how one is opened
    _run                  a container for one run
    pool                  containers made ahead
    testing               for tests of programs that run containers
    _lazy                 loads the public names; used by the faces here and in testing

The public names stand in ``__init__.pyi``. Each is loaded when it is first used: a program that
only imports this package, or pytest with a plugin of it, doesn't wait for what it may never need.
"""

from . import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
