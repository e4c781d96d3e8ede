/* The lake's format object, `.vexlake/format`: {"formatVersion": 1, "writer": "vexlake 0.1.0"}. */
#ifndef VEXI_FORMAT_LAKE_FORMAT_H
#define VEXI_FORMAT_LAKE_FORMAT_H

#include "base/buffer.h"
#include "base/bytes.h"

enum { VEXI_LAKE_FORMAT_VERSION = 1 };

vex_status vexi_lake_format_write(vexi_buffer *out, vex_error *err);
/* VEX_CORRUPT, or VEX_UNSUPPORTED for a newer version (the message tells both and the writer). */
vex_status vexi_lake_format_check(vexi_span file, vex_error *err);

#endif
