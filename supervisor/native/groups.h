/* For the keeper: the cgroups of a container, by descriptors. */
#ifndef SUPERVISOR_GROUPS_H
#define SUPERVISOR_GROUPS_H

/* Thaws the group at PATH and those below it, and kills what is in them: on version 1 what is
 * frozen can't even be killed. */
void end_group(const char *path);

/* Removes the group at PATH and those below it, however deep. What can't be killed within
 * PATIENCE_MS stays, with the groups above it. */
void remove_group(const char *path, int patience_ms);

#endif
