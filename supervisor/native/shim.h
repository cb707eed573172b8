/* What the parts of the shim call of each other. Each part calls only the parts above it in this
 * file; shim.c calls all of them, and describes what the shim does. */
#ifndef SUPERVISOR_SHIM_H
#define SUPERVISOR_SHIM_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PRINTF_LIKE(format_at, first) __attribute__((format(printf, format_at, first)))

enum { TEXT_SIZE = 1024 };

/* ---- words.c: short texts, the shim's log, clocks ----------------------------------------- */

bool write_text(int fd, const char *text);
int64_t now_ns(void);
int64_t monotonic_ms(void);
void escape(char *out, size_t size, const char *text);
void allow_notes(void);
PRINTF_LIKE(2, 3) void note(const char *level, const char *format, ...);
void close_quietly(int *fd);

/* ---- report.c: the one report to the launcher --------------------------------------------- */

void report_keep(void);                    /* once, before any launch */
void report_undoing(void (*undo)(void));   /* what fail() calls to end what was made */
void report_runtime(int status);           /* its wait status, for the report of a failure */
void report(const char *line);
bool reported(void);

/* Ends the shim before there is a process to watch; not allowed after the report. `error` is an
 * errno or 0. The report carries the number, so the launcher never has to match text. */
PRINTF_LIKE(3, 4) __attribute__((noreturn)) void fail(int error, const char *phase,
                                                      const char *format, ...);

/* ---- files.c: open a file or fail, read a file, write a file whole -------------------------- */

int open_or_fail(const char *phase, const char *path, int flags);
int open_fifo(const char *phase, const char *path, int flags);
ssize_t read_file(const char *path, char *buffer, size_t size);
int write_whole(const char *path, const char *text);
bool read_stat(pid_t pid, pid_t *parent, unsigned long long *start_time);

/* ---- fresh.c: undo what a container must not inherit from the supervisor -------------------- */

void fresh_umask(void);
void fresh_memory(void);     /* settings of a memory map: changes the shim's too */
void fresh_scheduling(void); /* between vfork and exec: system calls only */
void fresh_keyring(void);    /* between vfork and exec, too */
void fresh_oom_score(const char *score);

/* ---- index.c: the log index: at which byte of the whole log each file begins ---------------- */

enum { STAMP_SIZE = 30 }; /* 2026-01-31T12:34:56.123456789Z */

void index_configure(const char *spec);
bool index_wanted(void);
void index_open(int files, const char *stamp);
void index_note(long long start, const char *stamp); /* of a file's first record */
bool index_stands(void); /* false: the log's name belongs to another process by now */

/* ---- log.c: output streams into a file, in the CRI format -------------------------------- */

enum { LOG_WATCHED = 2 };

void log_configure(const char *spec); /* MAX_BYTES:FILES:PATH */
void log_open(void);
void log_add(int stream, int fd);       /* takes over the reading end of a fifo */
void log_watch(struct pollfd *watched); /* fills LOG_WATCHED entries */
int log_patience(void);                 /* how many ms poll may wait; -1: no limit */
void log_copy(const struct pollfd *watched);
bool log_active(void); /* a writer may still be there */
void log_finish(void);

/* ---- told.c: what the container's init reports of its program ------------------------------- */

/* Descriptors that the runtime hands on, from 3 on: a gate's report and the init's pipe. */
enum { HANDED_ON = 3, HANDED_ON_MAX = 2 };

struct told {
    int signal;     /* the signal that killed the program, or 0 */
    bool dumped;    /* whether the kernel dumped core */
    int exec_errno; /* why exec of the program failed, or 0 */
};

void told_configure(const char *spec);
void told_prepare(void);    /* before the runtime's process is forked */
bool told_hand_on(void);    /* in the child, before its exec: system calls only */
void told_let_go(void);     /* after the fork */
void told_read(int code, struct told *told); /* once, when the init has exited with `code` */

/* ---- copy.c: copiers: processes that copy between our fifos and the caller's files ---------- */

enum { COPY_WATCHED = 3 };

void copy_add(int stream, int ours, int theirs); /* takes over both descriptors */
void copy_start(void);
void copy_watch(struct pollfd *watched); /* fills COPY_WATCHED entries */
void copy_heed(const struct pollfd *watched);
bool copy_is(pid_t pid);      /* whether `pid` is a copier */
void copy_reaped(pid_t pid);
void copy_catch_up(void);     /* the process has ended: copy what it wrote to its target */
bool copy_behind(void);       /* not all of that is copied yet */
bool copy_written(void);      /* a fifo still had a writer when all was copied */
bool copy_active(void);       /* a copier of output is alive */
void copy_end_input(void);
void copy_dismiss(void);      /* the copiers copy what is there, and exit */
int64_t copy_idle_ms(void);   /* how long no target has taken anything */
void copy_finish(int patience_ms);

/* ---- terminal.c: the master of a pseudo-terminal, and the attached client ------------------- */

enum { TERMINAL_WATCHED = 3 };

void terminal_configure(const char *spec); /* the console socket, which the runtime connects to */
int terminal_console(void);                /* the console socket, or -1 */
void terminal_attached(int fd);            /* a client attached from the beginning */
int terminal_client(void);                 /* the attached client, or -1 */
void terminal_take(void);
void terminal_watch(struct pollfd *watched); /* fills TERMINAL_WATCHED entries */
int terminal_patience(void);
void terminal_copy(const struct pollfd *watched);
bool terminal_resize(int columns, int rows); /* false: the process has no terminal */
bool terminal_hang_up(void);                 /* false: there is no master */
bool terminal_has_client(void);              /* a client is attached */
bool terminal_active(void); /* after the process has ended: output is left to read */
void terminal_finish(void);

/* ---- idmap.c: a root file system mounted with the ids of a user namespace ------------------- */

void idmap_uids(const char *lines);
void idmap_gids(const char *lines);
void idmap_check(bool rooted);
bool idmap_wanted(void);
void idmap_prepare(void);         /* before the runtime's process is forked */
void idmap_let_go(void);          /* after the fork */
int idmap_open(const char *path); /* a detached mount, or -1 */
bool idmap_mount(int fd, const char *target);

/* ---- layer.c: a writable layer over a root file system, in the runtime's mount namespace ---- */

void layer_configure(const char *spec); /* BYTES:TARGET */
void layer_lower(const char *path);
void layer_target(const char *path); /* instead of a layer */
void layer_uids(const char *lines); /* for a user namespace around the runtime */
void layer_gids(const char *lines);
void layer_check(void);
void layer_prepare(void);     /* before the runtime's process is forked */
void layer_let_go(void);      /* after the fork */
int layer_mount(void);        /* 0 or an errno; in the child, before its exec */
void layer_failed(int error); /* calls fail() if making the layer failed */

#endif
