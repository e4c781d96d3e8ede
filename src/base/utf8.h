/* UTF-8 validation (RFC 3629: no surrogates, no overlong forms, at most U+10FFFF). */
#ifndef VEXI_BASE_UTF8_H
#define VEXI_BASE_UTF8_H

#include "base/status.h"

bool vexi_utf8_valid(const void *data, size_t size);

#endif
