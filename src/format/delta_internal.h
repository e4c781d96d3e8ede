/* What the parser, the writer and the state of the Delta log share among themselves. */
#ifndef VEXI_FORMAT_DELTA_INTERNAL_H
#define VEXI_FORMAT_DELTA_INTERNAL_H

#include "format/delta.h"

/* Version of our own keys in a table's configuration (vexlake.formatVersion). */
enum { VEXI_DELTA_FORMAT_VERSION = 1 };

/* Keys that more than one file names. */
#define VEXI_KEY_FORMAT_VERSION "vexlake.formatVersion"
#define VEXI_KEY_DIMENSION      "vexlake.dimension"
#define VEXI_KEY_METRIC         "vexlake.metric"
#define VEXI_KEY_INDEX          "vexlake.index"
#define VEXI_KEY_RECALL         "vexlake.recall"
#define VEXI_KEY_BITS           "vexlake.bits"
#define VEXI_KEY_ROTATION_SEED  "vexlake.rotationSeed"
#define VEXI_KEY_DROPPED        "vexlake.dropped"
#define VEXI_KEY_ENABLE_DV      "delta.enableDeletionVectors"
#define VEXI_TAG_INDEX_PATH     "vexlake.index.path"
#define VEXI_TAG_INDEX_SIZE     "vexlake.index.size"
#define VEXI_TAG_HEAD_SIZE      "vexlake.index.headSize"
#define VEXI_TAG_HEAD_CRC       "vexlake.index.headCrc32c"

/* Names of metrics and index kinds in the configuration, by enum value. */
extern const char *const vexi_delta_metric_names[3];
extern const char *const vexi_delta_index_names[4];

/* recall is written in millionths, as decimal text: "0.95". */
enum { VEXI_RECALL_UNITS = 1000000 };

/* Schema text of the type of a typed column; NULL for none. */
const char *vexi_delta_type_name(vex_type type);

/* Percent-decode a path of the log and check that it is relative, stays below the root and is UTF-8
 * without control characters. VEX_UNSUPPORTED for an absolute one, VEX_CORRUPT otherwise. */
vex_status vexi_path_decode(vex_string raw, vexi_arena *arena, vex_string *out, vex_error *err);
/* Append the encoding: all but unreserved characters and '/' as %HH. */
void vexi_path_encode(vex_string path, vexi_buffer *out);
/* Non-empty segments, none of them "." or "..", UTF-8 without control characters or backslash. */
bool vexi_path_safe(vex_string path);

/* Whether two descriptors name the same vector. */
bool vexi_dv_equal(const vexi_delta_dv *a, const vexi_delta_dv *b);

#endif
