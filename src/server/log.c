#include "server/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void vexi_log_line(const vexi_log_sink *sink, int level, const char *component, const char *format,
                   ...) {
    static const char *const names[] = {"debug", "info", "warning", "error"};
    if (level < sink->level) {
        return;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm parts;
    gmtime_r(&now.tv_sec, &parts);
    char line[1024];
    size_t used = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &parts);
    int wrote = snprintf(line + used, sizeof line - used, ".%03ldZ %s %s ", now.tv_nsec / 1000000,
                         names[level < 0   ? 0
                               : level > 3 ? 3
                                           : level],
                         component);
    used += wrote > 0 ? (size_t)wrote : 0;
    size_t message_start = used;
    va_list arguments;
    va_start(arguments, format);
    wrote = vsnprintf(line + used, sizeof line - used, format, arguments);
    va_end(arguments);
    if (wrote > 0) {
        used += (size_t)wrote;
    }
    if (used > sizeof line - 2) {
        used = sizeof line - 2;
    }
    for (size_t i = message_start; i < used; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) {
            line[i] = ' ';
        }
    }
    line[used++] = '\n';
    /* A log that cannot be written must not stop the server. */
    ssize_t ignored = write(sink->fd, line, used);
    (void)ignored;
}

void vexi_log_engine(void *context, int level, const char *message) {
    vexi_log_line(context, level, "engine", "%s", message);
}
