/* For the keeper: end and remove the cgroups of a container. */
#ifndef SUPERVISOR_GROUPS_H
#define SUPERVISOR_GROUPS_H

/* Thaws the group at PATH and those below, and kills the processes in them: on version 1 a frozen
 * process can't be killed. */
void end_group(const char *path);

/* Removes the group at PATH and those below, however deep. A group with processes that can't be
 * killed within PATIENCE_MS stays, with the groups above it. */
void remove_group(const char *path, int patience_ms);

#endif
