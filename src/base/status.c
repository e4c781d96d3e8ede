#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *vex_status_text(vex_status status) {
    switch (status) {
#define VEXI_STATUS_CASE(name, number, text) \
    case VEX_##name:                         \
        return text;
        VEX_STATUS_LIST(VEXI_STATUS_CASE)
#undef VEXI_STATUS_CASE
    }
    return "unknown status";
}

__attribute__((format(printf, 5, 0))) static void error_fill(vex_error *err, vex_status status,
                                                             int code, int64_t row,
                                                             const char *format,
                                                             va_list arguments) {
    if (err == NULL) {
        return;
    }
    err->status = status;
    err->code = code;
    err->row = row;
    vsnprintf(err->message, sizeof err->message, format, arguments);
    /* One line: what came from a client or a file must not break the reply it ends up in. */
    for (char *p = err->message; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            *p = ' ';
        }
    }
}

vex_status vexi_fail(vex_error *err, vex_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    error_fill(err, status, 0, -1, format, arguments);
    va_end(arguments);
    return status;
}

vex_status vexi_fail_code(vex_error *err, vex_status status, int code, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    error_fill(err, status, code, -1, format, arguments);
    va_end(arguments);
    return status;
}

vex_status vexi_fail_row(vex_error *err, vex_status status, int64_t row, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    error_fill(err, status, 0, row, format, arguments);
    va_end(arguments);
    return status;
}

vex_status vexi_prefix(vex_error *err, vex_status status, const char *format, ...) {
    if (err == NULL) {
        return status;
    }
    vex_error old = *err;
    int code = old.code;
    int64_t row = old.row;
    va_list arguments;
    va_start(arguments, format);
    error_fill(err, status, code, row, format, arguments);
    va_end(arguments);
    size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof err->message - used, ": %s", old.message);
    return status;
}

void vexi_assert_failed(const char *expression, const char *file, int line) {
    fprintf(stderr, "vexlake: assertion failed: %s (%s:%d)\n", expression, file, line);
    abort();
}
