/* Runs inside a container and says, as one JSON object, what it can do there.
 *
 * The arguments are harmless also where a call isn't filtered: they name nothing, or are no values
 * that the kernel knows. A filtered call says EPERM ("refused") or ENOSYS ("unknown"), one that the
 * kernel looks at something else ("reached"). What would be written is only opened. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *separator = "";

static void field(const char *name, const char *value) {
    printf("%s\"%s\": \"%s\"", separator, name, value);
    separator = ",\n";
}

static void number(const char *name, long value) {
    char text[32];
    snprintf(text, sizeof text, "%ld", value);
    field(name, text);
}

static void section(const char *name) {
    printf("%s\"%s\": {\n", *separator ? "},\n" : "{", name);
    separator = "";
}

static const char *answer(long said, int error) {
    if (said >= 0) return "reached";
    return error == EPERM ? "refused" : error == ENOSYS ? "unknown" : "reached";
}

/* Each in a child: what it changes, or makes, goes with that. */
#define TRY(name, ...)                                                                            \
    do {                                                                                          \
        int pair[2], error = EIO;                                                                 \
        if (pipe(pair) < 0) return 1;                                                             \
        fflush(stdout);                                                                           \
        pid_t parent = getpid(), child = fork();                                                  \
        if (child == 0) {                                                                         \
            errno = 0;                                                                            \
            long said = syscall(__VA_ARGS__);                                                     \
            error = said < 0 ? errno : 0;                                                         \
            if (getppid() != parent) _exit(0); /* made by a clone */                              \
            _exit(write(pair[1], &error, sizeof error) < 0);                                      \
        }                                                                                         \
        close(pair[1]);                                                                           \
        if (read(pair[0], &error, sizeof error) < 0) error = EIO;                                 \
        close(pair[0]);                                                                           \
        waitpid(child, NULL, 0);                                                                  \
        field(name, answer(error ? -1 : 0, error));                                               \
    } while (0)

static int system_calls(void) {
CALLS
    return 0;
}

/* "data", or "closed": not there, not readable, or empty as masked paths are. */
static void reads(const char *path) {
    char byte;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct stat is;
    int seen = fd >= 0 && fstat(fd, &is) == 0;
    ssize_t got = seen && !S_ISDIR(is.st_mode) ? read(fd, &byte, 1) : 0;
    if (seen && S_ISDIR(is.st_mode)) {
        DIR *all = fdopendir(dup(fd));
        for (struct dirent *one; all && (one = readdir(all));) got += one->d_name[0] != '.';
        if (all) closedir(all);
    }
    field(path, got > 0 ? "data" : "closed");
    if (fd >= 0) close(fd);
}

static void writes(const char *path) {
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    field(path, fd < 0 ? "closed" : "open");
    if (fd >= 0) close(fd);
}

static void makes(const char *directory) {
    char path[300];
    snprintf(path, sizeof path, "%s/supervisor-probe", directory);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    field(directory, fd < 0 ? "closed" : "open");
    if (fd >= 0) close(fd), unlink(path);
}

static void node(const char *name, mode_t kind, dev_t device) {
    int made = mknod("/tmp/supervisor-node", kind | 0600, device) == 0;
    int fd = made ? open("/tmp/supervisor-node", O_RDONLY | O_NONBLOCK) : -1;
    field(name, fd >= 0 ? "open" : "closed");
    if (fd >= 0) close(fd);
    unlink("/tmp/supervisor-node");
}

static void lines_of(const char *path, const char *const *wanted) {
    char line[1024];
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *value = strchr(line, ':');
        if (!value) continue;
        *value++ = 0;
        for (int i = 0; wanted[i]; i++)
            if (strcmp(line, wanted[i]) == 0) field(line, value + strspn(value, " \t"));
    }
    if (file) fclose(file);
}

static void status(char **environment) {
    static const char *const wanted[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
                                         "NoNewPrivs", "Seccomp", "Groups", "SigBlk", "SigIgn", 0};
    lines_of("/proc/self/status", wanted);
    mode_t mask = umask(0);
    umask(mask);
    number("umask", mask);
    number("nice", getpriority(PRIO_PROCESS, 0));
    number("uid", getuid());
    struct rlimit limit;
    number("core", getrlimit(RLIMIT_CORE, &limit) == 0 ? (long)limit.rlim_max : -1);
    number("nofile", getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (long)limit.rlim_max : -1);
    number("memlock", getrlimit(RLIMIT_MEMLOCK, &limit) == 0 ? (long)limit.rlim_max : -1);
    char names[2048] = "";
    for (; *environment; environment++) {
        size_t length = strcspn(*environment, "=");
        if (strlen(names) + length + 2 < sizeof names) {
            strncat(names, *environment, length);
            strcat(names, " ");
        }
    }
    field("environment", names);
}

static const char *kind(mode_t mode) {
    return S_ISFIFO(mode) ? "fifo" : S_ISCHR(mode) ? "device" : S_ISREG(mode) ? "file" :
           S_ISDIR(mode) ? "directory" : S_ISSOCK(mode) ? "socket" : "other";
}

static void streams(void) {
    char path[64], name[32], text[200];
    struct stat dev; /* a tmpfs of the container's own */
    if (stat("/dev", &dev) < 0) return;
    for (int fd = 0; fd < 1024; fd++) {
        struct stat is;
        if (fstat(fd, &is) < 0) continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        snprintf(name, sizeof name, "%d", fd);
        int both = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
        if (both >= 0) close(both);
        int flags = fcntl(fd, F_GETFL);
        snprintf(text, sizeof text, "%s, access %d%s%s%s%s", kind(is.st_mode), flags & O_ACCMODE,
                 flags & O_NONBLOCK ? ", nonblocking" : "", both >= 0 ? ", reopens" : "",
                 is.st_dev == dev.st_dev ? ", its own" : "",
                 fchmod(fd, is.st_mode & 07777) == 0 ? ", changes mode" : "");
        field(name, text);
    }
}

static void mounts(void) {
    char line[4096], name[2000], text[300];
    FILE *file = fopen("/proc/self/mountinfo", "re");
    while (file && fgets(line, sizeof line, file)) {
        char where[1024] = "", options[256] = "", type[64] = "";
        sscanf(line, "%*s %*s %*s %*s %1023s %255s", where, options);
        char *dash = strstr(line, " - ");
        if (dash) sscanf(dash + 3, "%63s", type);
        snprintf(name, sizeof name, "%s", where);
        snprintf(text, sizeof text, "%s %s", type, options);
        field(name, text);
    }
    if (file) fclose(file);
}

static void devices(void) {
    DIR *all = opendir("/dev");
    for (struct dirent *one; all && (one = readdir(all));)
        if (one->d_name[0] != '.') field(one->d_name, one->d_type == DT_BLK ? "block" : "");
    if (all) closedir(all);
}

int main(int argc, char **argv, char **environment) {
    (void)argc, (void)argv;
    section("streams"), streams(); /* nothing of ours is open yet */
    section("calls");
    if (system_calls()) return 1;
    section("reads");
READS
    section("writes");
WRITES
    section("makes");
MAKES
    section("nodes");
    node("memory", S_IFCHR, 0x101), node("disk", S_IFBLK, 0x800), node("fuse", S_IFCHR, 0xae5);
    section("status"), status(environment);
    section("devices"), devices();
    section("mounts"), mounts();
    printf("}}\n");
    return 0;
}
