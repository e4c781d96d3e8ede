#include "format/lake_format.h"

#include <jansson.h>

vex_status vexi_lake_format_write(vexi_buffer *out, vex_error *err) {
    vexi_buffer_format(out, "{\"formatVersion\":%d,\"writer\":\"vexlake %d.%d.%d\"}\n",
                       VEXI_LAKE_FORMAT_VERSION, VEX_VERSION_MAJOR, VEX_VERSION_MINOR,
                       VEX_VERSION_PATCH);
    return vexi_buffer_check(out, err);
}

vex_status vexi_lake_format_check(vexi_span file, vex_error *err) {
    json_t *root = json_loadb((const char *)file.data, file.size, 0, NULL);
    const json_t *version = json_object_get(root, "formatVersion");
    const char *writer = json_string_value(json_object_get(root, "writer"));
    vex_status status = VEX_OK;
    if (!json_is_integer(version) || json_integer_value(version) < 1) {
        status = vexi_fail(err, VEX_CORRUPT, ".vexlake/format does not tell a format version");
    } else if (json_integer_value(version) > VEXI_LAKE_FORMAT_VERSION) {
        status =
            vexi_fail(err, VEX_UNSUPPORTED,
                      "the lake has format version %lld (made by %.100s), this program knows "
                      "up to %d: use a newer one",
                      (long long)json_integer_value(version),
                      writer == NULL ? "an unknown program" : writer, VEXI_LAKE_FORMAT_VERSION);
    }
    json_decref(root);
    return status;
}
