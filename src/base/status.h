/* Statuses and errors: how every fallible function of VexLake reports.
 *
 * The failing place fills the caller's vex_error with vexi_fail; callers forward with VEX_TRY and
 * may put context in front of the message with vexi_prefix. Filling never allocates. */
#ifndef VEXI_BASE_STATUS_H
#define VEXI_BASE_STATUS_H

#include "vexlake.h"

/* Fill err (which may be NULL) and return status. code is 0, row is -1. */
vex_status vexi_fail(vex_error *err, vex_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with an errno or HTTP code, which is kept but not printed. */
vex_status vexi_fail_code(vex_error *err, vex_status status, int code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The same with the index of the offending row. */
vex_status vexi_fail_row(vex_error *err, vex_status status, int64_t row, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Put "text: " in front of the message. Keeps status, code and row; returns status. */
vex_status vexi_prefix(vex_error *err, vex_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Print and abort. Use VEX_ASSERT. */
_Noreturn void vexi_assert_failed(const char *expression, const char *file, int line);

/* For our own mistakes only; bytes from outside get a status. Active in every build. */
#define VEX_ASSERT(expression) \
    ((expression) ? (void)0 : vexi_assert_failed(#expression, __FILE__, __LINE__))

/* Return from the calling function if `expression` is not VEX_OK. */
#define VEX_TRY(expression)                        \
    do {                                           \
        vex_status vexi_try_status = (expression); \
        if (vexi_try_status != VEX_OK) {           \
            return vexi_try_status;                \
        }                                          \
    } while (0)

/* Assign to `status` and go to `label` if it is not VEX_OK. */
#define VEX_TRY_GOTO(status, label, expression) \
    do {                                        \
        (status) = (expression);                \
        if ((status) != VEX_OK) {               \
            goto label;                         \
        }                                       \
    } while (0)

#endif
