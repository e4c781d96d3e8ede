/* Log lines: `2026-01-31T12:00:00.000Z info server message key=value`, one write(2) each, so that
 * lines of several threads do not mix. Values with spaces or quotes are quoted by the caller's
 * format. */
#ifndef VEXI_SERVER_LOG_H
#define VEXI_SERVER_LOG_H

#include "base/env.h"

typedef enum vexi_log_level {
    VEXI_LOG_DEBUG = 0,
    VEXI_LOG_INFO = 1,
    VEXI_LOG_WARNING = 2,
    VEXI_LOG_ERROR = 3
} vexi_log_level;

/* Immutable once threads run. */
typedef struct vexi_log_sink {
    int level; /* lines below it are dropped */
    int fd;
} vexi_log_sink;

/* Write one line; line ends and control characters of the message become spaces. Thread-safe. */
void vexi_log_line(const vexi_log_sink *sink, int level, const char *component, const char *format,
                   ...) __attribute__((format(printf, 4, 5)));

/* A vex_log_function: context is the sink; the component is `engine`. */
void vexi_log_engine(void *context, int level, const char *message);

#endif
