/* For the keeper: open directories safely, by descriptors, and remove them. */
#ifndef SUPERVISOR_TREE_H
#define SUPERVISOR_TREE_H

#include <stdbool.h>
#include <sys/stat.h>

/* Opens a file NAME in DIRECTORY that has the KIND (S_IFDIR or S_IFREG), that belongs to us, and to
 * which no other user may write; else returns -1. Follows no link, and never blocks. */
int open_ours(int directory, const char *name, int flags, mode_t kind);

/* Whether the open directory belongs to us, and no other user may write to it. */
bool is_ours(int directory);

/* Whether NAME in DIRECTORY is the file that is open as FD. */
bool is_named(int directory, const char *name, int fd);

/* Opens the directory NAME in DIRECTORY; -1 for a link or a mount point: what is mounted there
 * isn't ours. */
int open_below(int directory, const char *name);

/* Splits an absolute PATH: opens its directory, and points NAME to its last part. */
int open_parent(const char *path, const char **name);

/* Calls ACT with the name of every entry of a directory but `.` and `..`, until ACT returns false.
 * Returns whether the directory could be listed. */
bool for_each(int directory, bool (*act)(int directory, const char *name, void *data), void *data);

/* Removes all that is in an open directory, however deep, but nothing through links or mounts. */
void empty_tree(int directory);

#endif
