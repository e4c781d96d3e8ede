/* Metrics as text, in the two formats that Prometheus reads.
 *
 * OpenMetrics 1.0: a family has a name, a type, a unit that ends its name, and a help text; a
 * counter's samples end with _total, an info's with _info; the text ends with # EOF. The older text
 * format 0.0.4: no units, no info, no end, and a counter's family has the _total in its name. */
#ifndef VEXI_SERVER_EXPOSE_H
#define VEXI_SERVER_EXPOSE_H

#include "base/buffer.h"
#include "base/histogram.h"

typedef enum vexi_expose_type {
    VEXI_EXPOSE_GAUGE,
    VEXI_EXPOSE_COUNTER,
    VEXI_EXPOSE_HISTOGRAM,
    VEXI_EXPOSE_INFO
} vexi_expose_type;

typedef struct vexi_exposition {
    vexi_buffer *out; /* borrowed */
    bool open_metrics;
    const char *family; /* borrowed; the one that samples belong to */
    vexi_expose_type type;
} vexi_exposition;

/* A label of a sample; key NULL: none. The value may hold any bytes that are UTF-8. */
typedef struct vexi_label {
    const char *key;
    vex_string value;
} vexi_label;

/* Begin a family. `name` without _total; unit "" for none, else `name` ends with it. */
void vexi_expose_family(vexi_exposition *e, const char *name, vexi_expose_type type,
                        const char *unit, const char *help);
/* A sample of the family: a number, or nanoseconds told in seconds. */
void vexi_expose_number(vexi_exposition *e, vexi_label label, uint64_t value);
void vexi_expose_seconds(vexi_exposition *e, vexi_label label, uint64_t ns);
/* All samples of a histogram, whose count is the sum of its buckets. */
void vexi_expose_histogram(vexi_exposition *e, vexi_label label,
                           const uint64_t buckets[VEXI_HISTOGRAM_BUCKETS], uint64_t sum_ns);
/* The end of the text. */
void vexi_expose_end(vexi_exposition *e);

/* Whether an Accept header asks for OpenMetrics; NULL: there is none. */
bool vexi_expose_wants_open_metrics(const char *accept);

#endif
