/* For the keeper: what it may delete in a runtime's root that others use too. */
#ifndef SUPERVISOR_OWNED_H
#define SUPERVISOR_OWNED_H

#include <stdbool.h>

/* Whether one of the files in which a runtime keeps what it knows, in DIRECTORY, names the bundle
 * WORDS, or something in it. */
bool is_owned(const char *directory, const char *words);

#endif
