/* For the keeper: what it may have a runtime delete. */
#ifndef SUPERVISOR_OWNED_H
#define SUPERVISOR_OWNED_H

#include <stdbool.h>

/* Whether DIRECTORY, in which a runtime keeps what it knows of a container, and its files are ours,
 * and one of these names the bundle WORDS, or something in it. */
bool is_owned(const char *directory, const char *words);

/* Whether the runtime may believe what is in DIRECTORY, if there is anything: it and its files are
 * ours, and those that name a bundle name WORDS. For a runtime's root that is only ours. */
bool is_nobody_elses(const char *directory, const char *words);

/* Removes DIRECTORY if a create was killed before it had written whose it is, and none is under way
 * now: whoever makes a container of that id has it among its arguments. */
void remove_begun(const char *directory);

#endif
