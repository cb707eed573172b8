/* A stand-in for an OCI runtime and for the programs in its containers: no namespaces, no cgroups.
 *
 * With it a thousand containers are made in seconds, and what is measured is this library.
 *
 *   standin --root DIR [--log F ...] create --bundle B --pid-file P ID | start ID | state ID |
 *           delete [--force] ID
 *   true    ends at once
 *   stamp   waits for 30 ms, writes the clock (CLOCK_MONOTONIC, in nanoseconds), and ends
 *   idle    waits to be killed
 *
 * The container's program is the base name of the first of process.args, run by this very program;
 * real runtimes find the three by their links.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static int stamp(void)
{
    struct timespec now = {.tv_nsec = 30 * 1000 * 1000};
    nanosleep(&now, NULL);
    clock_gettime(CLOCK_MONOTONIC, &now);
    char text[32];
    int length = snprintf(text, sizeof text, "%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
    return write(STDOUT_FILENO, text, (size_t)length) != length;
}

static int run(const char *program)
{
    if (strcmp(program, "stamp") == 0)
        return stamp();
    while (strcmp(program, "idle") == 0)
        pause();
    return 0;
}

/* The first of process.args, as Python's json.dumps writes it, without its directories. */
static int program_of(const char *bundle, char *program, size_t room)
{
    static char config[1 << 20];
    char path[4096];
    snprintf(path, sizeof path, "%s/config.json", bundle);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, config, sizeof config - 1) <= 0)
        return fail(path);
    const char *start = strstr(config, "\"args\": [\"");
    char *end = start == NULL ? NULL : strchr(start += 10, '"');
    if (end == NULL)
        return fail("args");
    *end = '\0';
    const char *slash = strrchr(start, '/');
    snprintf(program, room, "%s", slash == NULL ? start : slash + 1);
    return 0;
}

static int write_pid(const char *path, pid_t pid)
{
    FILE *file = fopen(path, "wxe");
    return file == NULL || fprintf(file, "%d", (int)pid) < 0 || fclose(file) != 0 ? fail(path) : 0;
}

static pid_t read_pid(const char *path)
{
    int pid = 0;
    FILE *file = fopen(path, "re");
    if (file != NULL && fscanf(file, "%d", &pid) != 1)
        pid = 0;
    if (file != NULL)
        fclose(file);
    return pid;
}

static int create(const char *state, const char *bundle, const char *pid_file)
{
    char program[256];
    if (program_of(bundle, program, sizeof program) != 0)
        return 1;
    sigset_t gate;
    sigemptyset(&gate);
    sigaddset(&gate, SIGUSR1);
    sigprocmask(SIG_BLOCK, &gate, NULL); /* before the fork: a start that is quick is kept */
    pid_t pid = fork();
    if (pid == 0) {
        int number;
        sigwait(&gate, &number);
        _exit(run(program));
    }
    return pid < 0 || write_pid(state, pid) != 0 ? 1 : write_pid(pid_file, pid);
}

static int delete(const char *state, int force)
{
    pid_t pid = read_pid(state);
    while (pid > 0 && force && kill(pid, SIGKILL) == 0)
        usleep(500); /* until its shim has reaped it */
    return unlink(state) != 0 && !force ? fail(state) : 0;
}

static const char *option(int argc, char **argv, const char *name)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return "";
}

static int has(int argc, char **argv, const char *word)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], word) == 0)
            return 1;
    return 0;
}

int main(int argc, char **argv)
{
    const char *name = strrchr(argv[0], '/') == NULL ? argv[0] : strrchr(argv[0], '/') + 1;
    if (strcmp(name, "standin") != 0)
        return run(name);
    char state[4096];
    const char *root = option(argc, argv, "--root");
    mkdir(root, 0700);
    snprintf(state, sizeof state, "%s/%s", root, argv[argc - 1]);
    if (has(argc, argv, "create"))
        return create(state, option(argc, argv, "--bundle"), option(argc, argv, "--pid-file"));
    if (has(argc, argv, "start"))
        return kill(read_pid(state), SIGUSR1) != 0 ? fail("kill") : 0;
    if (has(argc, argv, "delete"))
        return delete(state, has(argc, argv, "--force"));
    if (has(argc, argv, "state"))
        return printf("{\"status\": \"running\", \"pid\": %d}\n", (int)read_pid(state)) < 0;
    return fail("no such command");
}
