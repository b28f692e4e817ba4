/* Shifts the wall clock of a program that was started with LD_PRELOAD of this, by the seconds that the file
 * $CNX_E2E_WALL_CLOCK holds at the moment. The other clocks stay: so an administrator's `date -s` looks. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    const char *path = getenv("CNX_E2E_WALL_CLOCK");
    if (result != 0 || clock != CLOCK_REALTIME || path == NULL) return result;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return result;
    char text[32] = {0};
    if (read(file, text, sizeof text - 1) > 0) time->tv_sec += atol(text);
    close(file);
    return result;
}
