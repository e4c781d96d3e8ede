#include "server/settings.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

typedef enum setting_kind {
    SETTING_TEXT,
    SETTING_SECRET, /* text that is never shown */
    SETTING_NUMBER,
    SETTING_BYTES,  /* a number with an optional kb, mb or gb behind it */
    SETTING_PORT,   /* a number, or off */
    SETTING_SWITCH, /* yes or no; as a flag without a value: yes */
    SETTING_CHOICE, /* one of `choices`, separated by |; its index */
    SETTING_FOLDERS /* may be given several times */
} setting_kind;

typedef struct setting {
    const char *name;
    setting_kind kind;
    size_t offset;        /* in vexi_settings */
    const char *argument; /* as --help shows it */
    const char *initial;
    uint64_t least;
    uint64_t most;
    const char *choices;
    const char *help;
} setting;

#define AT(field) offsetof(vexi_settings, field)
#define KIB       UINT64_C(1024)
#define MIB       (KIB * 1024)
#define GIB       (MIB * 1024)

static const setting table[] = {
    {"lake", SETTING_TEXT, AT(lake), "URI", "./lake", 0, 0, NULL,
     "The lake: a folder, file://..., s3://bucket/prefix or mem://. Keys for S3 come from the AWS "
     "environment variables or the AWS files."},
    {"endpoint", SETTING_TEXT, AT(s3_endpoint), "URL", "", 0, 0, NULL,
     "Of s3://: the server, e.g. http://127.0.0.1:8333. Empty: AWS_ENDPOINT_URL, the profile, "
     "AWS."},
    {"region", SETTING_TEXT, AT(s3_region), "NAME", "", 0, 0, NULL,
     "Of s3://: the region. Empty: AWS_REGION, the profile, us-east-1."},
    {"profile", SETTING_TEXT, AT(s3_profile), "NAME", "", 0, 0, NULL,
     "Of s3://: profile of the AWS files. Empty: AWS_PROFILE, default."},
    {"ca-file", SETTING_TEXT, AT(s3_ca_file), "FILE", "", 0, 0, NULL,
     "Of s3://: certificate authorities. Empty: AWS_CA_BUNDLE, the profile, the system's."},
    {"insecure", SETTING_SWITCH, AT(s3_insecure), "", "no", 0, 1, NULL,
     "Of s3://: accept any certificate."},
    {"virtual-host", SETTING_SWITCH, AT(s3_virtual_host), "", "no", 0, 1, NULL,
     "Of s3://: name the bucket in the host (bucket.host/name) instead of the path."},
    {"bind", SETTING_TEXT, AT(bind), "ADDRESS", "127.0.0.1", 0, 0, NULL,
     "Address to listen on. One that is not loopback needs --requirepass."},
    {"port", SETTING_NUMBER, AT(port), "N", "6390", 0, 65535, NULL,
     "Port to listen on; 0 takes a free one and logs it."},
    {"http-port", SETTING_PORT, AT(http_port), "N|off", "off", 0, 65535, NULL,
     "Port for /metrics, /health and /ready (docs/operations.md); 0 takes a free one and logs it."},
    {"http-bind", SETTING_TEXT, AT(http_bind), "ADDRESS", "127.0.0.1", 0, 0, NULL,
     "Address of that port. It asks for no password and tells names of collections."},
    {"config", SETTING_TEXT, AT(config), "FILE", "", 0, 0, NULL,
     "Read settings from a file, a `key value` on each line; flags win."},
    {"requirepass", SETTING_SECRET, AT(requirepass), "PASSWORD", "", 0, 0, NULL,
     "Password that clients give with AUTH or HELLO."},
    {"durability", SETTING_CHOICE, AT(durability), "auto|always|interval|lake", "auto", 0, 0,
     "auto|always|interval|lake",
     "When a write is answered: after the log is synced, before (see sync-interval), or after it "
     "is an object in the lake (s3:// alone). auto: lake on s3://, else always."},
    {"sync-interval", SETTING_NUMBER, AT(sync_interval_ms), "MS", "100", 1, 60000, NULL,
     "With durability interval: milliseconds between syncs, which a crash may lose."},
    {"role", SETTING_CHOICE, AT(role), "writer|reader", "writer", 0, 0, "writer|reader",
     "Of s3://: a writer may write collections that no other node does and reads all; a reader "
     "writes nothing. Any number of both may run over one lake."},
    {"takeover", SETTING_SWITCH, AT(takeover), "", "no", 0, 1, NULL,
     "Of s3://: write collections that another node holds, whatever it does (once for each). Else "
     "only when it has ended, or has been silent for 30 seconds."},
    {"group-delay", SETTING_NUMBER, AT(group_delay_ms), "MS", "50", 1, 10000, NULL,
     "With durability lake: how long a write waits for others to be put with it."},
    {"group-size", SETTING_BYTES, AT(group_size_bytes), "SIZE", "1mb", KIB, 32 * MIB, NULL,
     "With durability lake: size at which it does not wait any longer."},
    {"poll-interval", SETTING_NUMBER, AT(poll_interval_ms), "MS", "1000", 10, 3600000, NULL,
     "How often commits and logs of other nodes and engines are looked for; on s3:// of "
     "collections that were asked in the last minute."},
    {"flush-size", SETTING_BYTES, AT(flush_size_bytes), "SIZE", "64mb", 64 * KIB, 16 * GIB, NULL,
     "Size of a collection's new rows at which they become a segment."},
    {"flush-interval", SETTING_NUMBER, AT(flush_interval_s), "SECONDS", "300", 1, 86400, NULL,
     "Age of the oldest new row at which a collection is flushed."},
    {"memory", SETTING_BYTES, AT(memory_bytes), "SIZE", "0", 0, 1024 * GIB, NULL,
     "Memory for new rows, graphs and the cache together (docs/operations.md tells how it is "
     "shared). 0 means three quarters of the machine's, or of what its control group allows."},
    {"memtable-memory", SETTING_BYTES, AT(memtable_memory_bytes), "SIZE", "0", 0, 1024 * GIB, NULL,
     "Of that, for new rows of all collections; writes wait, then fail, above it. 0 means a "
     "quarter, at most 1gb."},
    {"graph-memory", SETTING_BYTES, AT(graph_memory_bytes), "SIZE", "0", 0, 1024 * GIB, NULL,
     "Of that, for graphs (INDEX hnsw) of all collections; segments beyond it are searched by IVF. "
     "0 means half, or three quarters without a cache."},
    {"cache-memory", SETTING_BYTES, AT(cache_memory_bytes), "SIZE", "0", 0, 1024 * GIB, NULL,
     "Of that, with s3://, for blocks that were read. 0 means a quarter."},
    {"cache-dir", SETTING_TEXT, AT(cache_dir), "FOLDER", "", 0, 0, NULL,
     "With s3://: a folder on a local SSD that keeps blocks that were read, for later runs too. It "
     "is made if missing and used by one process at a time. Empty: none."},
    {"cache-size", SETTING_BYTES, AT(cache_size_bytes), "SIZE", "10gb", 4 * MIB, 1048576 * GIB,
     NULL, "Size of that folder."},
    {"prefetch", SETTING_SWITCH, AT(prefetch), "", "yes", 0, 1, NULL,
     "With s3://: fetch the codes of lists in the background when the lake is opened, up to a "
     "quarter of cache-memory."},
    {"threads", SETTING_NUMBER, AT(thread_count), "N", "0", 0, 256, NULL,
     "Background threads of the engine; 0 means one per core."},
    {"search-threads", SETTING_NUMBER, AT(search_thread_count), "N", "4", 1, 64, NULL,
     "Longer searches that run at the same time; others wait."},
    {"import-dir", SETTING_FOLDERS, AT(import_dirs), "FOLDER", "", 0, 0, NULL,
     "Folder below which VIMPORT may read; may be given several times. None by default."},
    {"maxclients", SETTING_NUMBER, AT(client_max), "N", "10000", 1, 1000000, NULL,
     "Connections at the same time."},
    {"query-buffer-limit", SETTING_BYTES, AT(query_buffer_limit), "SIZE", "128mb", MIB, 4 * GIB,
     NULL, "Size of one command."},
    {"output-buffer-limit", SETTING_BYTES, AT(output_buffer_limit), "SIZE", "256mb", 64 * KIB,
     16 * GIB, NULL, "Size of replies that wait for one client."},
    {"read-only", SETTING_SWITCH, AT(read_only), "", "no", 0, 1, NULL,
     "Open the lake without taking its lock and refuse writes."},
    {"log-level", SETTING_CHOICE, AT(log_level), "debug|info|warning|error", "info", 0, 0,
     "debug|info|warning|error", "Least severe log lines that are written to stderr."},
};

#define SETTING_COUNT (sizeof table / sizeof table[0])

static uint64_t *number_of(vexi_settings *settings, const setting *entry) {
    return (uint64_t *)(void *)((char *)settings + entry->offset);
}

static char *text_of(vexi_settings *settings, const setting *entry) {
    return (char *)settings + entry->offset;
}

static bool parse_number(vex_string text, bool with_unit, uint64_t *out) {
    uint64_t value = 0;
    size_t i = 0;
    for (; i < text.size && text.data[i] >= '0' && text.data[i] <= '9'; i++) {
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text.data[i] - '0'), &value)) {
            return false;
        }
    }
    if (i == 0) {
        return false;
    }
    vex_string unit = {.data = text.data + i, .size = text.size - i};
    uint64_t factor = 1;
    if (unit.size > 0) {
        if (!with_unit || unit.size > 2 || (unit.size == 2 && (unit.data[1] | 0x20) != 'b')) {
            return false;
        }
        switch (unit.data[0] | 0x20) {
        case 'k':
            factor = KIB;
            break;
        case 'm':
            factor = MIB;
            break;
        case 'g':
            factor = GIB;
            break;
        default:
            return false;
        }
    }
    *out = value;
    return !__builtin_mul_overflow(value, factor, out);
}

/* Index of `text` among "a|b|c"; false if it is none of them. */
static bool find_choice(const char *choices, vex_string text, uint64_t *out) {
    uint64_t index = 0;
    const char *start = choices;
    for (;;) {
        const char *end = strchr(start, '|');
        size_t size = end != NULL ? (size_t)(end - start) : strlen(start);
        if (size == text.size && memcmp(start, text.data, size) == 0) {
            *out = index;
            return true;
        }
        if (end == NULL) {
            return false;
        }
        start = end + 1;
        index++;
    }
}

static vex_status set(vexi_settings *settings, const setting *entry, vex_string value,
                      vex_error *err) {
    int shown = value.size > 100 ? 100 : (int)value.size;
    switch (entry->kind) {
    case SETTING_TEXT:
    case SETTING_SECRET:
        if (value.size >= VEXI_TEXT_SETTING_SIZE || memchr(value.data, '\0', value.size) != NULL) {
            return vexi_fail(err, VEX_INVALID, "%s: longer than %u bytes", entry->name,
                             VEXI_TEXT_SETTING_SIZE - 1);
        }
        memcpy(text_of(settings, entry), value.data, value.size);
        text_of(settings, entry)[value.size] = '\0';
        return VEX_OK;
    case SETTING_FOLDERS: {
        if (value.size == 0) {
            return VEX_OK;
        }
        if (settings->import_dir_count == VEXI_IMPORT_DIRS_MAX ||
            value.size >= VEXI_TEXT_SETTING_SIZE) {
            return vexi_fail(err, VEX_INVALID, "%s: at most %u folders of at most %u bytes",
                             entry->name, VEXI_IMPORT_DIRS_MAX, VEXI_TEXT_SETTING_SIZE - 1);
        }
        char *folder = settings->import_dirs[settings->import_dir_count++];
        memcpy(folder, value.data, value.size);
        folder[value.size] = '\0';
        return VEX_OK;
    }
    case SETTING_PORT:
        if (vexi_string_is(value, "off")) {
            *number_of(settings, entry) = VEXI_PORT_OFF;
            return VEX_OK;
        }
        /* fall through */
    case SETTING_NUMBER:
    case SETTING_BYTES: {
        uint64_t number;
        if (!parse_number(value, entry->kind == SETTING_BYTES, &number) || number < entry->least ||
            number > entry->most) {
            return vexi_fail(err, VEX_INVALID, "%s: '%.*s' is not a number from %llu to %llu%s",
                             entry->name, shown, value.data, (unsigned long long)entry->least,
                             (unsigned long long)entry->most,
                             entry->kind == SETTING_BYTES  ? " (kb, mb, gb may follow)"
                             : entry->kind == SETTING_PORT ? " or off"
                                                           : "");
        }
        *number_of(settings, entry) = number;
        return VEX_OK;
    }
    case SETTING_SWITCH:
        if (!vexi_string_is(value, "yes") && !vexi_string_is(value, "no")) {
            return vexi_fail(err, VEX_INVALID, "%s: '%.*s' is neither yes nor no", entry->name,
                             shown, value.data);
        }
        *number_of(settings, entry) = vexi_string_is(value, "yes") ? 1 : 0;
        return VEX_OK;
    case SETTING_CHOICE:
        if (!find_choice(entry->choices, value, number_of(settings, entry))) {
            return vexi_fail(err, VEX_INVALID, "%s: '%.*s' is none of %s", entry->name, shown,
                             value.data, entry->choices);
        }
        return VEX_OK;
    }
    return vexi_fail(err, VEX_INTERNAL, "setting of an unknown kind");
}

void vexi_settings_defaults(vexi_settings *settings) {
    memset(settings, 0, sizeof *settings);
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        vex_error err;
        vex_status status = set(settings, &table[i], vexi_string_of(table[i].initial), &err);
        VEX_ASSERT(status == VEX_OK);
    }
}

static const setting *find(vex_string name) {
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        if (vexi_string_is(name, table[i].name)) {
            return &table[i];
        }
    }
    return NULL;
}

static vex_string trim(const char *start, const char *end) {
    while (start < end && (*start == ' ' || *start == '\t' || *start == '\r')) {
        start++;
    }
    while (end > start && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r')) {
        end--;
    }
    return (vex_string){.data = start, .size = (size_t)(end - start)};
}

vex_status vexi_settings_parse_text(vexi_settings *settings, const char *text, size_t size,
                                    const char *path, vex_error *err) {
    const char *end = text + size;
    int line = 0;
    while (text < end) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        line_end = line_end != NULL ? line_end : end;
        line++;
        vex_string content = trim(text, line_end);
        text = line_end < end ? line_end + 1 : end;
        if (content.size == 0 || content.data[0] == '#') {
            continue;
        }
        const char *space = content.data;
        const char *content_end = content.data + content.size;
        while (space < content_end && *space != ' ' && *space != '\t') {
            space++;
        }
        vex_string key = {.data = content.data, .size = (size_t)(space - content.data)};
        const setting *entry = find(key);
        if (entry == NULL || entry->offset == AT(config)) {
            return vexi_fail(err, VEX_INVALID, "%s:%d: unknown key '%.*s'", path, line,
                             key.size > 100 ? 100 : (int)key.size, key.data);
        }
        vex_status status = set(settings, entry, trim(space, content_end), err);
        if (status != VEX_OK) {
            return vexi_prefix(err, status, "%s:%d", path, line);
        }
    }
    return VEX_OK;
}

static vex_status parse_file(vexi_settings *settings, const char *path, vex_error *err) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return vexi_fail(err, VEX_IO, "cannot read %s: %s", path, strerror(errno));
    }
    char text[65536];
    size_t size = fread(text, 1, sizeof text, file);
    bool failed = ferror(file) != 0;
    fclose(file);
    if (failed || size == sizeof text) {
        return vexi_fail(err, failed ? VEX_IO : VEX_LIMIT, "cannot read %s: %s", path,
                         failed ? "read error" : "larger than 64 KiB");
    }
    return vexi_settings_parse_text(settings, text, size, path, err);
}

/* Walk the flags; apply those that are (or, for the first pass, are not) --config. */
static vex_status apply_flags(vexi_settings *settings, int argc, char **argv, bool config_pass,
                              vexi_settings_request *request, vex_error *err) {
    for (int i = 1; i < argc; i++) {
        const char *flag = argv[i];
        if (strcmp(flag, "--help") == 0 || strcmp(flag, "-h") == 0) {
            request->help = true;
            continue;
        }
        if (strcmp(flag, "--print-docs") == 0) {
            request->markdown = true;
            continue;
        }
        if (strncmp(flag, "--", 2) != 0) {
            return vexi_fail(err, VEX_INVALID, "unexpected argument '%.100s'", flag);
        }
        vex_string name = vexi_string_of(flag + 2);
        const char *equals = strchr(flag, '=');
        if (equals != NULL) {
            name.size = (size_t)(equals - flag) - 2;
        }
        const setting *entry = find(name);
        if (entry == NULL) {
            return vexi_fail(err, VEX_INVALID, "unknown flag '%.100s' (--help lists them)", flag);
        }
        vex_string value;
        if (equals != NULL) {
            value = vexi_string_of(equals + 1);
        } else if (entry->kind == SETTING_SWITCH &&
                   (i + 1 == argc ||
                    (strcmp(argv[i + 1], "yes") != 0 && strcmp(argv[i + 1], "no") != 0))) {
            value = vexi_string_of("yes");
        } else if (i + 1 == argc) {
            return vexi_fail(err, VEX_INVALID, "%s needs a value", flag);
        } else {
            value = vexi_string_of(argv[++i]);
        }
        if ((entry->offset == AT(config)) == config_pass) {
            VEX_TRY(set(settings, entry, value, err));
        }
    }
    return VEX_OK;
}

vex_status vexi_settings_parse(vexi_settings *settings, int argc, char **argv,
                               vexi_settings_request *request, vex_error *err) {
    *request = (vexi_settings_request){0};
    vexi_settings_defaults(settings);
    VEX_TRY(apply_flags(settings, argc, argv, true, request, err));
    if (settings->config[0] != '\0' && !request->help && !request->markdown) {
        VEX_TRY(parse_file(settings, settings->config, err));
    }
    return apply_flags(settings, argc, argv, false, request, err);
}

void vexi_settings_help(vexi_buffer *out) {
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        char flag[64];
        snprintf(flag, sizeof flag, "--%s %s", table[i].name, table[i].argument);
        vexi_buffer_format(out, "  %-38s %s", flag, table[i].help);
        if (table[i].initial[0] != '\0') {
            vexi_buffer_format(out, " [%s]", table[i].initial);
        }
        vexi_buffer_text(out, "\n");
    }
}

void vexi_settings_markdown(vexi_buffer *out) {
    vexi_buffer_text(out, "| setting | value | default | meaning |\n| --- | --- | --- | --- |\n");
    for (size_t i = 0; i < SETTING_COUNT; i++) {
        vexi_buffer_format(out, "| `%s` | ", table[i].name);
        for (const char *p = table[i].argument[0] != '\0' ? table[i].argument : "yes|no";
             *p != '\0'; p++) {
            if (*p == '|') {
                vexi_buffer_text(out, " or ");
            } else {
                vexi_buffer_u8(out, (uint8_t)*p);
            }
        }
        vexi_buffer_format(out, " | %s | %s |\n",
                           table[i].initial[0] != '\0' ? table[i].initial : "", table[i].help);
    }
}

bool vexi_settings_at(const vexi_settings *settings, size_t i, const char **name, char *value,
                      size_t size) {
    if (i >= SETTING_COUNT) {
        return false;
    }
    const setting *entry = &table[i];
    const char *base = (const char *)settings + entry->offset;
    *name = entry->name;
    uint64_t number = 0;
    if (entry->kind != SETTING_TEXT && entry->kind != SETTING_SECRET &&
        entry->kind != SETTING_FOLDERS) {
        memcpy(&number, base, sizeof number);
    }
    value[0] = '\0';
    switch (entry->kind) {
    case SETTING_TEXT:
        snprintf(value, size, "%s", base);
        break;
    case SETTING_SECRET:
        break;
    case SETTING_PORT:
        if (number == VEXI_PORT_OFF) {
            snprintf(value, size, "off");
            break;
        }
        /* fall through */
    case SETTING_NUMBER:
    case SETTING_BYTES:
        snprintf(value, size, "%llu", (unsigned long long)number);
        break;
    case SETTING_SWITCH:
        snprintf(value, size, "%s", number != 0 ? "yes" : "no");
        break;
    case SETTING_CHOICE: {
        const char *start = entry->choices;
        for (; number > 0; number--) {
            start = strchr(start, '|') + 1;
        }
        snprintf(value, size, "%.*s", (int)strcspn(start, "|"), start);
        break;
    }
    case SETTING_FOLDERS: {
        size_t used = 0;
        for (uint64_t f = 0; f < settings->import_dir_count && used + 1 < size; f++) {
            int wrote = snprintf(value + used, size - used, "%s%s", f > 0 ? " " : "",
                                 settings->import_dirs[f]);
            used += wrote > 0 ? (size_t)wrote : 0;
        }
        break;
    }
    }
    return true;
}
