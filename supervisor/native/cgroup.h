/* For the shim and the keeper: cgroups of ours, where nobody kills us with our supervisor. */
#ifndef SUPERVISOR_CGROUP_H
#define SUPERVISOR_CGROUP_H

#include <stddef.h>

/* Takes note of a cgroup.procs file, one for each hierarchy; false if there are too many. */
_Bool cgroup_add(const char *procs);

size_t cgroup_count(void);
const char *cgroup_name(size_t number);

/* Moves us there; 0 or an errno. The directory is made if it has gone. After a pause this takes
 * some milliseconds: the kernel waits for an RCU grace period. */
int cgroup_enter(size_t number);

/* Moves us further up, out of all of them, and removes those that are empty then. */
void cgroup_leave(void);

#endif
