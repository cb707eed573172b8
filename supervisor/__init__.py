"""Run and supervise OCI containers from Trio, without a daemon.

Begin with these names. Each has a docstring, and docs/api.md lists all public names::

  Bundle.from_host(args), Bundle.from_rootfs(rootfs, args), Bundle.load(path): what to run
  run_container(bundle): run a program to the end, in the manner of trio.run_process
  open_supervisor(root=None): a supervisor; its containers end with the block, or live on in a root
  Supervisor.create(id, bundle): a Container: start, exec, run, wait, stop, delete
  ContainerPool(bundle): containers that are created ahead of time, one for each taker
  SupervisorError: the root of all errors

For contributors, the order of the packages. A package imports only from packages above its own
line, and only names of their ``__init__``. Inside a package, imports form no circles::

    values                pure: errors, exit statuses, states, deadlines
    system                Linux: descriptors, files, locks, /proc
    native                the C programs
    tasks                 Trio: deadlines, threads, Ctrl-C, forked children
    observers             what happens to containers, and what is notified of that
    state children        what is on disk; child processes, by descriptor
    cgroups directories   cgroups; roots and temporary directories
    userns spec rootfs    parts of a config.json; root filesystems
    bundle                bundles
    runtime               calls of the OCI runtime
    shim stdio            the shim's protocol; standard streams, terminals, logs
    process               one shimmed process and its task
    running               a program that is run to the end
    container             one container: each operation is a module
    recovery              adoption of the containers that earlier supervisors left
    _leash _registry      the leash and the keeper; the table of all containers
    _adoptions            adoptions, one after the other
    _supervisor _open     the supervisor, and how a supervisor is opened
    _run                  a container for one run
    pool                  containers created ahead of time
    testing               for tests of programs that run containers
    _lazy                 loads the public names, for this ``__init__`` and that of testing

The public names are in ``__init__.pyi``. Each name is loaded at the first use: a program that only
imports this package, or pytest with the package's plugin, needn't wait for the whole library.
"""

from . import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(__name__, __file__)
