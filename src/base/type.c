#include "base/type.h"

const char *vexi_type_name(vex_type type) {
    switch (type) {
    case VEX_TYPE_INT64:
        return "int64";
    case VEX_TYPE_DOUBLE:
        return "double";
    case VEX_TYPE_STRING:
        return "string";
    case VEX_TYPE_BOOL:
        return "bool";
    case VEX_TYPE_TIMESTAMP:
        return "timestamp";
    }
    return "unknown";
}
