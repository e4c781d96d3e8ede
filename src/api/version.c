/* Version and options: what ties a caller's header to this library. */
#include <string.h>

#include "api/api.h"
#include "base/bytes.h"

#define TEXT(x)                           #x
#define VERSION_TEXT(major, minor, patch) TEXT(major) "." TEXT(minor) "." TEXT(patch)

const char *vex_version(void) {
    return VERSION_TEXT(VEX_VERSION_MAJOR, VEX_VERSION_MINOR, VEX_VERSION_PATCH);
}

vex_status vexi_options_copy(const void *options, const char *type, void *out, size_t out_size,
                             vex_error *err) {
    size_t size;
    memset(out, 0, out_size);
    if (options == NULL) {
        memcpy(out, &out_size, sizeof out_size);
        return VEX_OK;
    }
    memcpy(&size, options, sizeof size);
    if (size < sizeof size) {
        return vexi_fail(err, VEX_INVALID, "%s.size is %zu: set it to sizeof(%s)", type, size,
                         type);
    }
    const uint8_t *bytes = options;
    for (size_t i = out_size; i < size; i++) {
        if (bytes[i] != 0) {
            return vexi_fail(err, VEX_UNSUPPORTED,
                             "%s asks for something that this version of the library does not know",
                             type);
        }
    }
    memcpy(out, options, size < out_size ? size : out_size);
    memcpy(out, &out_size, sizeof out_size);
    return VEX_OK;
}
