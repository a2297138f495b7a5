/* Preloaded into a worker: every WRITE_ERROR_EVERY-th write to an MP4 fails with EIO, inside libav as anywhere else. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int file)
{
    static int writes;
    char link[64], path[4096];
    const char *every = getenv("WRITE_ERROR_EVERY");
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!every || length < 4 || memcmp(path + length - 4, ".mp4", 4)) return 0;
    return ++writes % atoi(every) == 0;
}

ssize_t write(int file, const void *bytes, size_t count)
{
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    if (fails(file)) { errno = EIO; return -1; }
    return real(file, bytes, count);
}
