#include "server/expose.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char *const type_names[] = {"gauge", "counter", "histogram", "info"};

static const char *suffix_of(vexi_expose_type type) {
    return type == VEXI_EXPOSE_COUNTER ? "_total" : type == VEXI_EXPOSE_INFO ? "_info" : "";
}

void vexi_expose_family(vexi_exposition *e, const char *name, vexi_expose_type type,
                        const char *unit, const char *help) {
    e->family = name;
    e->type = type;
    if (e->open_metrics) {
        vexi_buffer_format(e->out, "# TYPE %s %s\n", name, type_names[type]);
        if (unit[0] != '\0') {
            vexi_buffer_format(e->out, "# UNIT %s %s\n", name, unit);
        }
        vexi_buffer_format(e->out, "# HELP %s %s\n", name, help);
    } else {
        vexi_buffer_format(e->out, "# HELP %s%s %s\n# TYPE %s%s %s\n", name, suffix_of(type), help,
                           name, suffix_of(type),
                           type == VEXI_EXPOSE_INFO ? "gauge" : type_names[type]);
    }
}

static void write_value(vexi_buffer *out, vex_string value) {
    for (size_t i = 0; i < value.size; i++) {
        char c = value.data[i];
        if (c == '\n') {
            vexi_buffer_append(out, "\\n", 2);
        } else {
            if (c == '\\' || c == '"') {
                vexi_buffer_u8(out, '\\');
            }
            vexi_buffer_u8(out, (uint8_t)c);
        }
    }
}

/* Name, labels and the blank before the value. bound: of a bucket, or NULL. */
static void write_sample(vexi_exposition *e, const char *suffix, vexi_label label,
                         const char *bound) {
    vexi_buffer_format(e->out, "%s%s", e->family, suffix);
    if (label.key != NULL || bound != NULL) {
        vexi_buffer_u8(e->out, '{');
        if (label.key != NULL) {
            vexi_buffer_format(e->out, "%s=\"", label.key);
            write_value(e->out, label.value);
            vexi_buffer_u8(e->out, '"');
        }
        if (bound != NULL) {
            vexi_buffer_format(e->out, "%sle=\"%s\"", label.key != NULL ? "," : "", bound);
        }
        vexi_buffer_u8(e->out, '}');
    }
    vexi_buffer_u8(e->out, ' ');
}

void vexi_expose_number(vexi_exposition *e, vexi_label label, uint64_t value) {
    write_sample(e, suffix_of(e->type), label, NULL);
    vexi_buffer_format(e->out, "%llu\n", (unsigned long long)value);
}

static void write_seconds(vexi_buffer *out, uint64_t ns) {
    vexi_buffer_format(out, "%llu.%09llu", (unsigned long long)(ns / 1000000000u),
                       (unsigned long long)(ns % 1000000000u));
}

void vexi_expose_seconds(vexi_exposition *e, vexi_label label, uint64_t ns) {
    write_sample(e, suffix_of(e->type), label, NULL);
    write_seconds(e->out, ns);
    vexi_buffer_u8(e->out, '\n');
}

void vexi_expose_histogram(vexi_exposition *e, vexi_label label,
                           const uint64_t buckets[VEXI_HISTOGRAM_BUCKETS], uint64_t sum_ns) {
    uint64_t count = 0;
    for (uint32_t b = 0; b < VEXI_HISTOGRAM_BUCKETS; b++) {
        char bound[32] = "+Inf";
        if (b + 1 < VEXI_HISTOGRAM_BUCKETS) {
            uint64_t ns = vexi_histogram_bound_ns(b);
            snprintf(bound, sizeof bound, "%llu.%09llu", (unsigned long long)(ns / 1000000000u),
                     (unsigned long long)(ns % 1000000000u));
        }
        count += buckets[b];
        write_sample(e, "_bucket", label, bound);
        vexi_buffer_format(e->out, "%llu\n", (unsigned long long)count);
    }
    write_sample(e, "_count", label, NULL);
    vexi_buffer_format(e->out, "%llu\n", (unsigned long long)count);
    write_sample(e, "_sum", label, NULL);
    write_seconds(e->out, sum_ns);
    vexi_buffer_u8(e->out, '\n');
}

void vexi_expose_end(vexi_exposition *e) {
    if (e->open_metrics) {
        vexi_buffer_text(e->out, "# EOF\n");
    }
}

/* Whether the parameters of a media range, up to its comma, give it no weight (q=0, q=0.0 ...). */
static bool is_refused(const char *parameters, const char *end) {
    for (const char *p = parameters; p < end; p++) {
        if (*p != ';') {
            continue;
        }
        const char *q = p + 1;
        while (q < end && *q == ' ') {
            q++;
        }
        if (end - q >= 3 && (q[0] | 0x20) == 'q' && q[1] == '=') {
            for (q += 2; q < end && (*q == '0' || *q == '.'); q++) {
            }
            return q == end || *q == ' ' || *q == ';';
        }
    }
    return false;
}

bool vexi_expose_wants_open_metrics(const char *accept) {
    static const char type[] = "application/openmetrics-text";
    const size_t size = sizeof type - 1;
    for (const char *p = accept; p != NULL && *p != '\0';) {
        p += strspn(p, ", \t");
        const char *end = p + strcspn(p, ",");
        if ((size_t)(end - p) >= size && strncasecmp(p, type, size) == 0 &&
            (p + size == end || p[size] == ';' || p[size] == ' ') && !is_refused(p + size, end)) {
            return true;
        }
        p = end;
    }
    return false;
}
