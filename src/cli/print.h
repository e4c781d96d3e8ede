/* Arrow batches as text: an aligned table for people, tab-separated or JSON lines for programs. */
#ifndef VEXI_CLI_PRINT_H
#define VEXI_CLI_PRINT_H

#include <stdio.h>

#include "base/status.h"

typedef enum vexi_cli_style {
    VEXI_CLI_TABLE, /* aligned; long values are cut                                            */
    VEXI_CLI_TABS,  /* a line of names, then a line per row, split by tabs; nothing is cut     */
    VEXI_CLI_JSON   /* a JSON object per line                                                  */
} vexi_cli_style;

/* Print a batch as VexLake returns them: uint32, int64, float64, bool, utf8, binary, timestamp[us]
 * and fixed-size lists of float32. Columns before `first_column` are left out. In JSON a column
 * named `attributes` is printed as the object that it holds, binary as base64, a timestamp as ISO
 * 8601 text; null stays null, and in text is an empty field.
 *
 * VEX_UNSUPPORTED  a column of another type. */
vex_status vexi_cli_print(const struct ArrowSchema *schema, const struct ArrowArray *batch,
                          int64_t first_column, vexi_cli_style style, FILE *out, vex_error *err);

/* Text that came from a lake, for a terminal: control characters become question marks. */
void vexi_cli_print_safe(const char *text, size_t size, FILE *out);

#endif
