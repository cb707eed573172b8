/* For the keeper: directories that it may work in, by descriptors, and their removal. */
#ifndef SUPERVISOR_TREE_H
#define SUPERVISOR_TREE_H

#include <stdbool.h>
#include <sys/stat.h>

/* Opens NAME in DIRECTORY if it is what it should be, S_IFDIR or S_IFREG, belongs to us, and nobody
 * else may write to it; else -1. It is no link, and opening it waits for nobody. */
int open_ours(int directory, const char *name, int flags, mode_t kind);

/* Whether the open directory belongs to us, and nobody else may write to it. */
bool is_ours(int directory);

/* Whether NAME in DIRECTORY is what is open as FD. */
bool is_named(int directory, const char *name, int fd);

/* Opens the directory NAME in DIRECTORY; not a link, nor where something is mounted: what is in
 * that is somebody else's. */
int open_below(int directory, const char *name);

/* Splits an absolute PATH: opens the directory that it is in, and points NAME to its last part. */
int open_parent(const char *path, const char **name);

/* Calls ACT with the name of every entry of a directory but `.` and `..`, until it says false. Says
 * itself whether it could list them. */
bool for_each(int directory, bool (*act)(int directory, const char *name, void *data), void *data);

/* Removes all that is in an open directory, however deep: not through links, nor through mounts. */
void empty_tree(int directory);

#endif
