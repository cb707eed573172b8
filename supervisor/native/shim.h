/* What the parts of the shim know of each other, each only those that stand before it. shim.c is
 * above them all, and says what the shim does. */
#ifndef SUPERVISOR_SHIM_H
#define SUPERVISOR_SHIM_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PRINTF_LIKE(format_at, first) __attribute__((format(printf, format_at, first)))

enum { TEXT_SIZE = 1024 };

/* ---- words.c: small words to people and to other programs -------------------------------- */

bool write_text(int fd, const char *text);
int64_t now_ns(void);
int64_t monotonic_ms(void);
void escape(char *out, size_t size, const char *text);
void allow_notes(void);
PRINTF_LIKE(2, 3) void note(const char *level, const char *format, ...);
void close_quietly(int *fd);

/* ---- report.c: the one report to the launcher --------------------------------------------- */

void report_keep(void);                    /* once, before anything is launched */
void report_undoing(void (*undo)(void));   /* what ends all that was made, if we fail */
void report_runtime(int status);           /* how the runtime ended, for the report of a failure */
void report(const char *line);
bool reported(void);

/* Ends the shim before it has a process to watch. After the report it may not be called.
 * `error` is an errno, or 0: it travels as a number, so that nobody has to match text. */
PRINTF_LIKE(3, 4) __attribute__((noreturn)) void fail(int error, const char *phase,
                                                      const char *format, ...);

/* ---- files.c: opened or given up for, read, written whole ---------------------------------- */

int open_or_fail(const char *phase, const char *path, int flags);
int open_fifo(const char *phase, const char *path, int flags);
ssize_t read_file(const char *path, char *buffer, size_t size);
int write_whole(const char *path, const char *text);
bool read_stat(pid_t pid, pid_t *parent, unsigned long long *start_time);

/* ---- fresh.c: nothing of our own scheduling is handed on ----------------------------------- */

void fresh_umask(void);
void fresh_memory(void);     /* what is of a program's memory, and so the shim's own too */
void fresh_scheduling(void); /* between vfork and exec: system calls only */
void fresh_keyring(void);    /* there, too */
void fresh_oom_score(const char *score);

/* ---- index.c: where in the whole of a log each of its files begins -------------------------- */

enum { STAMP_SIZE = 30 }; /* 2026-01-31T12:34:56.123456789Z */

void index_configure(const char *spec);
bool index_wanted(void);
void index_open(int files, const char *stamp);
void index_note(long long start, const char *stamp); /* a file's first byte, and first record */
bool index_stands(void); /* false: the log's name is another process's by now */

/* ---- log.c: output streams into a file, in the CRI format -------------------------------- */

enum { LOG_WATCHED = 2 };

void log_configure(const char *spec); /* MAX_BYTES:FILES:PATH */
void log_open(void);
void log_add(int stream, int fd);       /* takes over the reading end of a fifo */
void log_watch(struct pollfd *watched); /* fills LOG_WATCHED entries */
int log_patience(void);                 /* how many ms poll may wait; -1 is for ever */
void log_copy(const struct pollfd *watched);
bool log_active(void); /* somebody may still write */
void log_finish(void);

/* ---- told.c: what the container's init tells of its program -------------------------------- */

/* The runtime hands on what it has from 3 on: a gate's report, and the init's pipe. */
enum { HANDED_ON = 3, HANDED_ON_MAX = 2 };

struct told {
    int signal;     /* which signal killed the program, or 0 */
    bool dumped;    /* whether the kernel dumped core then */
    int exec_errno; /* why it couldn't be run, or 0 */
};

void told_configure(const char *spec);
void told_prepare(void);    /* before the runtime's process is forked */
bool told_hand_on(void);    /* in the runtime's process, before it is that: system calls only */
void told_let_go(void);     /* after that */
void told_read(int code, struct told *told); /* once: the init has exited with this code */

/* ---- copy.c: processes that copy between a fifo of ours and what is somebody else's -------- */

enum { COPY_WATCHED = 3 };

void copy_add(int stream, int ours, int theirs); /* takes over both */
void copy_start(void);
void copy_watch(struct pollfd *watched); /* fills COPY_WATCHED entries */
void copy_heed(const struct pollfd *watched);
bool copy_is(pid_t pid);      /* whether that is a copier */
void copy_reaped(pid_t pid);
void copy_catch_up(void);     /* the process has ended: what it wrote shall get where it goes */
bool copy_behind(void);       /* it isn't there yet */
bool copy_written(void);      /* somebody could still write when they had caught up */
bool copy_active(void);       /* somebody may still write */
void copy_end_input(void);
void copy_dismiss(void);      /* they copy what is there, and end */
int64_t copy_idle_ms(void);   /* since when nobody takes what they copy */
void copy_finish(int patience_ms);

/* ---- terminal.c: the master of a pseudo-terminal, and whoever is attached to it ----------- */

enum { TERMINAL_WATCHED = 3 };

void terminal_configure(const char *spec); /* the descriptor that listens for the runtime */
int terminal_console(void);                /* that descriptor, or -1 */
void terminal_attached(int fd);            /* who is attached from the beginning */
int terminal_client(void);                 /* that descriptor, or -1 */
void terminal_take(void);
void terminal_watch(struct pollfd *watched); /* fills TERMINAL_WATCHED entries */
int terminal_patience(void);
void terminal_copy(const struct pollfd *watched);
bool terminal_resize(int columns, int rows); /* false: the process has no terminal */
bool terminal_hang_up(void);                 /* false: there is none */
bool terminal_has_client(void);              /* somebody is attached */
bool terminal_active(void); /* the process has ended: there is output left to read */
void terminal_finish(void);

/* ---- idmap.c: a root file system with the ids of a user namespace ------------------------- */

void idmap_uids(const char *lines);
void idmap_gids(const char *lines);
void idmap_check(bool rooted);
bool idmap_wanted(void);
void idmap_prepare(void);         /* before the runtime's process is forked */
void idmap_let_go(void);          /* after that */
int idmap_open(const char *path); /* a mount that is nowhere yet, or -1 */
bool idmap_mount(int fd, const char *target);

/* ---- layer.c: a writable layer over a root file system, seen by the runtime only ---------- */

void layer_configure(const char *spec); /* BYTES:TARGET */
void layer_lower(const char *path);
void layer_target(const char *path); /* in place of a layer */
void layer_uids(const char *lines); /* for a user namespace around the runtime */
void layer_gids(const char *lines);
void layer_check(void);
void layer_prepare(void);     /* before the runtime's process is forked */
void layer_let_go(void);      /* after that */
int layer_mount(void);        /* 0 or an errno; in the runtime's process, before it is that */
void layer_failed(int error); /* fails, if it was the layer that couldn't be made */

#endif
