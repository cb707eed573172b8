/* For the shim and the keeper: cgroups of their own, where a kill of the supervisor's cgroup
 * doesn't reach them. */
#ifndef SUPERVISOR_CGROUP_H
#define SUPERVISOR_CGROUP_H

#include <stddef.h>

/* Remembers a cgroup.procs file, one for each hierarchy; false if there are too many. */
_Bool cgroup_add(const char *procs);

size_t cgroup_count(void);
const char *cgroup_name(size_t number);

/* Moves us into that cgroup; 0 or an errno. Makes the directory if it has gone. After a pause the
 * move takes some milliseconds: the kernel waits for an RCU grace period. */
int cgroup_enter(size_t number);

/* Moves us out of all these cgroups, further up, and removes those that are empty then. */
void cgroup_leave(void);

#endif
