/* For the keeper: which containers a runtime may be asked to delete. */
#ifndef SUPERVISOR_OWNED_H
#define SUPERVISOR_OWNED_H

#include <stdbool.h>

/* Whether DIRECTORY, in which a runtime keeps a container's state, and the files there are ours,
 * and one file names the bundle WORDS, or a path in that bundle. */
bool is_owned(const char *directory, const char *words);

/* Whether the runtime may trust DIRECTORY: the directory is missing; or the directory and the files
 * are ours, and those that name a bundle name WORDS. For a runtime root that only we use. */
bool is_nobody_elses(const char *directory, const char *words);

/* Detaches runc's copies of its program that are mounted in DIRECTORY: a runc that was killed leaves
 * one, and could then not delete the container. */
void detach_copies(const char *directory);

/* Removes DIRECTORY if a create was killed before the bundle's path was written, and no create of
 * that id is under way: a runtime that creates the id has the id among its arguments. */
void remove_begun(const char *directory);

#endif
