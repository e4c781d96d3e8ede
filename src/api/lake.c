/* Opening and closing: the place where the engine's world is put together.
 *
 * A handle owns the environment (threads, clock, memory) and, for a lake on disk, the disk. Both
 * must outlive every Arrow result, so they live in a keeper that the handle and the results share
 * (query/keeper.h). Closing ends the engine and silences the log function, whose context the caller
 * may free then; threads and memory go with the last result. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "api/api.h"
#include "api/memory.h"
#include "base/bytes.h"
#include "base/guard.h"
#include "base/machine.h"
#include "store/cache.h"
#include "store/s3.h"

enum {
    DEFAULT_SYNC_INTERVAL_MS = 100,
    DEFAULT_FLUSH_INTERVAL_MS = 300000,
    DEFAULT_REFRESH_INTERVAL_MS = 1000,
    DEFAULT_GROUP_DELAY_MS = 50,
    CLAIM_TIMEOUT_MS = 30000,
    HEARTBEAT_INTERVAL_MS = 5000,
    DEFAULT_THREADS_MAX = 16,
    DEFAULT_CACHE_GIBIBYTES = 10,
    MEBIBYTE = 1 << 20
};

/* The keeper of a handle made here. */
typedef struct lake_keeper {
    vexi_keeper keeper;
    vexi_env *env;
    vexi_disk *disk;               /* NULL for mem:// */
    _Atomic(vex_log_function) log; /* atomic; NULL once the lake is closed */
    void *log_context;             /* immutable */
    vexi_store_counters counters;  /* atomic */
    /* Of a lake on S3, as long as it is open; immutable. */
    vexi_store *s3;
    vexi_store *cache;
    uint64_t cache_memory_bytes;
    uint64_t cache_disk_bytes;
} lake_keeper;

static void keeper_log(void *context, int level, const char *message) {
    lake_keeper *keeper = context;
    vex_log_function log = atomic_load(&keeper->log);
    if (log != NULL) {
        log(keeper->log_context, level, message);
    }
}

static void keeper_destroy(vexi_keeper *base) {
    lake_keeper *keeper = (lake_keeper *)(void *)base;
    vexi_env *env = keeper->env;
    vexi_disk_destroy(keeper->disk);
    env->log = NULL;
    vexi_free(env, keeper);
    vexi_env_system_destroy(env);
}

static vex_status keeper_create(const vex_lake_options *options, lake_keeper **out,
                                vex_error *err) {
    uint32_t thread_count = options->thread_count;
    if (thread_count == 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        thread_count = cores < 1                     ? 1
                       : cores > DEFAULT_THREADS_MAX ? DEFAULT_THREADS_MAX
                                                     : (uint32_t)cores;
    }
    vexi_env *env;
    VEX_TRY(vexi_env_system_create(thread_count, NULL, NULL, &env, err));
    lake_keeper *keeper = vexi_calloc(env, 1, sizeof *keeper);
    if (keeper == NULL) {
        vexi_env_system_destroy(env);
        return vexi_no_memory(err, sizeof *keeper);
    }
    keeper->keeper.env = env;
    keeper->keeper.destroy = keeper_destroy;
    atomic_init(&keeper->keeper.references, 1);
    keeper->env = env;
    atomic_init(&keeper->log, options->log);
    keeper->log_context = options->log_context;
    if (options->log != NULL) { /* no task runs yet: nobody else looks at env */
        env->log = keeper_log;
        env->log_context = keeper;
    }
    *out = keeper;
    return VEX_OK;
}

/* ---- URI ------------------------------------------------------------------------------------- */

/* The scheme in front of "://", of size 0 if there is none. A path may hold "://" further on, so
 * only letters, digits, '+', '-' and '.' count (RFC 3986). */
static size_t scheme_size(const char *uri) {
    size_t size = 0;
    for (; uri[size] != '\0' && uri[size] != ':'; size++) {
        char c = uri[size];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool other = (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.';
        if (!letter && !(size > 0 && other)) {
            return 0;
        }
    }
    return strncmp(uri + size, "://", 3) == 0 ? size : 0;
}

static bool scheme_is(const char *uri, size_t size, const char *name) {
    return size == strlen(name) && strncasecmp(uri, name, size) == 0;
}

typedef enum lake_place { PLACE_MEMORY, PLACE_FOLDER, PLACE_S3 } lake_place;

/* *path: the folder of a lake on disk, taken literally (no percent-decoding); NULL elsewhere. */
static vex_status uri_parse(const char *uri, lake_place *place, const char **path, vex_error *err) {
    *path = NULL;
    *place = PLACE_MEMORY;
    if (uri == NULL || uri[0] == '\0') {
        return vexi_fail(err, VEX_INVALID, "the lake's URI is empty");
    }
    size_t scheme = scheme_size(uri);
    const char *rest = scheme == 0 ? uri : uri + scheme + 3;
    if (scheme_is(uri, scheme, "mem")) {
        if (rest[0] != '\0') {
            return vexi_fail(err, VEX_INVALID, "'%s': a lake in memory has no name, use mem://",
                             uri);
        }
        return VEX_OK;
    }
    if (scheme_is(uri, scheme, "s3")) {
        *place = PLACE_S3;
        return VEX_OK;
    }
    if (scheme != 0 && !scheme_is(uri, scheme, "file")) {
        return vexi_fail(err, VEX_INVALID, "'%s': unknown scheme, use file://, s3:// or mem://",
                         uri);
    }
    if (rest[0] == '\0') {
        return vexi_fail(err, VEX_INVALID, "'%s' names no folder", uri);
    }
    *place = PLACE_FOLDER;
    *path = rest;
    return VEX_OK;
}

/* ---- Open and close -------------------------------------------------------------------------- */

/* This process, for people: what claims say. */
static void node_name(char *out, size_t size) {
    char host[64] = "";
    (void)gethostname(host, sizeof host - 1);
    for (char *c = host; *c != '\0'; c++) {
        if (*c <= ' ' || *c > '~' || *c == '"' || *c == '\\') {
            *c = '?';
        }
    }
    snprintf(out, size, "%s:%ld", host[0] != '\0' ? host : "host", (long)getpid());
}

static uint64_t cache_disk_bytes(const vex_lake_options *options) {
    return options->cache_size_bytes != 0 ? options->cache_size_bytes
                                          : (uint64_t)DEFAULT_CACHE_GIBIBYTES * 1024 * MEBIBYTE;
}

static vex_status config_from_options(const vex_lake_options *options, lake_place place,
                                      const vexi_memory_plan *plan, vexi_lake_config *out,
                                      vex_error *err) {
    if (options->durability > VEX_DURABILITY_LAKE) {
        return vexi_fail(err, VEX_INVALID, "durability is %d, not one of vex_durability",
                         (int)options->durability);
    }
    bool shared = place == PLACE_S3;
    vex_durability durability = options->durability != VEX_DURABILITY_DEFAULT ? options->durability
                                : shared                                      ? VEX_DURABILITY_LAKE
                                         : VEX_DURABILITY_ALWAYS;
    if (shared != (durability == VEX_DURABILITY_LAKE)) {
        return vexi_fail(err, VEX_INVALID,
                         shared ? "a lake on s3:// has its log in the lake: durability is lake"
                                : "durability lake is for s3://: a folder's log is in it anyway");
    }
    *out = (vexi_lake_config){
        .read_only = options->read_only,
        .must_exist = options->must_exist,
        .durability = durability,
        .sync_interval_ms =
            options->sync_interval_ms != 0 ? options->sync_interval_ms : DEFAULT_SYNC_INTERVAL_MS,
        .flush_interval_ms = options->flush_interval_ms != 0 ? options->flush_interval_ms
                                                             : DEFAULT_FLUSH_INTERVAL_MS,
        .refresh_interval_ms = options->refresh_interval_ms != 0 ? options->refresh_interval_ms
                                                                 : DEFAULT_REFRESH_INTERVAL_MS,
        .flush_size_bytes =
            options->flush_size_bytes != 0 ? options->flush_size_bytes : 64u * MEBIBYTE,
        .memory_limit_bytes = plan->memtable_bytes,
        .graph_memory_bytes = plan->graph_bytes,
        .cache_memory_bytes = plan->cache_bytes,
        .cache_disk_bytes =
            plan->cache_bytes > 0 && options->cache_folder != NULL ? cache_disk_bytes(options) : 0,
        .prefetch = !options->no_prefetch,
        .segment_size_bytes = 256u * MEBIBYTE,
        .log_size_bytes = 64u * MEBIBYTE,
        .shared = shared,
        .takeover = options->takeover,
        .claim_timeout_ms = CLAIM_TIMEOUT_MS,
        .heartbeat_interval_ms = HEARTBEAT_INTERVAL_MS,
        .group_delay_ms =
            options->group_delay_ms != 0 ? options->group_delay_ms : DEFAULT_GROUP_DELAY_MS,
        .group_size_bytes = options->group_size_bytes != 0 ? options->group_size_bytes : MEBIBYTE,
    };
    node_name(out->node_name, sizeof out->node_name);
    return VEX_OK;
}

/* What is cached are the data, index and graph files of collections: <collection>/data/... and
 * <collection>/index/..., which nobody writes twice. Delta logs, write-ahead logs, claims and
 * heartbeats are anywhere else, and must be read as they are now. */
static bool is_uncached(void *context, const char *name) {
    (void)context;
    const char *rest = strchr(name, '/');
    if (rest == NULL || name[0] == '.') {
        return true;
    }
    if (strncmp(rest, "/index/", 7) == 0) {
        return false;
    }
    return strncmp(rest, "/data/", 6) != 0 || strncmp(rest, "/data/_delta_log/", 17) == 0;
}

/* `store` is taken. */
static vex_status cache_open(lake_keeper *keeper, const vex_lake_options *options,
                             const vexi_memory_plan *plan, vexi_store *store, vexi_store **out,
                             vex_error *err) {
    vexi_cache_config config = {
        .memory_bytes = plan->cache_bytes,
        .folder = options->cache_folder,
        .disk_bytes = cache_disk_bytes(options),
        .fill_on_put = true,
        .is_uncached = is_uncached,
    };
    if (config.folder != NULL) {
        vex_status status = vexi_disk_posix_create(keeper->env, &keeper->disk, err);
        if (status != VEX_OK) {
            vexi_store_destroy(store);
            return status;
        }
        config.disk = keeper->disk;
    }
    vex_status status = vexi_store_cache_create(keeper->env, store, &config, out, err);
    if (status != VEX_OK) {
        return vexi_prefix(err, status, "the cache folder");
    }
    keeper->s3 = store;
    keeper->cache = *out;
    keeper->cache_memory_bytes = config.memory_bytes;
    keeper->cache_disk_bytes = config.folder != NULL ? config.disk_bytes : 0;
    return VEX_OK;
}

/* Server, bucket and keys are tried here, so that what is wrong with them is told by one line. */
static vex_status s3_open(lake_keeper *keeper, const char *uri, const vex_lake_options *options,
                          const vexi_memory_plan *plan, vexi_store **out, vex_error *err) {
    vexi_s3_options s3 = {
        .size = sizeof s3,
        .endpoint = options->s3_endpoint,
        .region = options->s3_region,
        .profile = options->s3_profile,
        .access_key = options->s3_access_key,
        .secret_key = options->s3_secret_key,
        .session_token = options->s3_session_token,
        .ca_file = options->s3_ca_file,
        .insecure = options->s3_insecure,
        .virtual_host = options->s3_virtual_host,
    };
    vexi_s3_settings *settings = vexi_alloc(keeper->env, sizeof *settings);
    if (settings == NULL) {
        return vexi_no_memory(err, sizeof *settings);
    }
    vexi_store *store = NULL;
    vex_status status = vexi_s3_settings_load(uri, &s3, vexi_s3_environment, NULL, settings, err);
    if (status == VEX_OK) {
        status = vexi_store_s3_create(keeper->env, settings, &store, err);
    }
    vexi_s3_settings_wipe(settings);
    vexi_free(keeper->env, settings);
    if (status == VEX_OK) {
        status = vexi_store_s3_check(store, err);
    }
    if (status == VEX_OK && !options->read_only) {
        /* The claims and commits of several nodes rest on it. */
        status = vexi_store_s3_probe(store, err);
    }
    if (status != VEX_OK) {
        vexi_store_destroy(store);
        return status;
    }
    return cache_open(keeper, options, plan, store, out, err);
}

static vex_status store_open(lake_keeper *keeper, lake_place place, const char *uri,
                             const char *path, const vex_lake_options *options,
                             const vexi_memory_plan *plan, const vexi_lake_config *config,
                             vexi_store **out, vex_error *err) {
    if (place == PLACE_S3) {
        return s3_open(keeper, uri, options, plan, out, err);
    }
    if (place == PLACE_MEMORY) {
        if (config->must_exist || config->read_only) {
            return vexi_fail(err, VEX_NOT_FOUND, "mem:// is always a new lake");
        }
        return vexi_store_mem_create(keeper->env, out, err);
    }
    VEX_TRY(vexi_disk_posix_create(keeper->env, &keeper->disk, err));
    bool create = !config->must_exist && !config->read_only;
    return vexi_store_file_create(keeper->env, keeper->disk, path, create, out, err);
}

vex_status vex_lake_open(const char *uri, const vex_lake_options *options, vex_lake **out,
                         vex_error *err) {
    vex_lake_options known;
    vexi_lake_config config;
    lake_place place;
    const char *path;
    vexi_store *store = NULL;
    lake_keeper *keeper = NULL;

    if (out == NULL) {
        return vexi_fail(err, VEX_INVALID, "out is NULL");
    }
    *out = NULL;
    VEX_TRY(vexi_options_copy(options, "vex_lake_options", &known, sizeof known, err));
    VEX_TRY(uri_parse(uri, &place, &path, err));
    vexi_memory_plan plan = vexi_memory_share(&known, vexi_machine_memory(), place == PLACE_S3);
    VEX_TRY(config_from_options(&known, place, &plan, &config, err));
    vexi_guard_install();
    VEX_TRY(keeper_create(&known, &keeper, err));

    vex_status status = VEX_OK;
    vex_lake *lake = vexi_calloc(keeper->env, 1, sizeof *lake);
    if (lake == NULL) {
        status = vexi_no_memory(err, sizeof *lake);
        goto done;
    }
    lake->keeper = &keeper->keeper;
    VEX_TRY_GOTO(status, done,
                 store_open(keeper, place, uri, path, &known, &plan, &config, &store, err));
    vexi_store_count(store, &keeper->counters);
    VEX_TRY_GOTO(status, done, vexi_lake_open(keeper->env, store, &config, &lake->lake, err));
    *out = lake;
done:
    if (status != VEX_OK) {
        vexi_free(keeper->env, lake);
        vexi_keeper_release(&keeper->keeper);
    }
    return status;
}

vex_status vex_lake_close(vex_lake *lake, vex_error *err) {
    if (lake == NULL) {
        return VEX_OK;
    }
    lake_keeper *keeper = (lake_keeper *)(void *)lake->keeper;
    vex_status status = vexi_lake_close(lake->lake, err);
    atomic_store(&keeper->log, NULL);
    vexi_free(keeper->env, lake);
    vexi_keeper_release(&keeper->keeper);
    return status;
}

/* ---- Watching -------------------------------------------------------------------------------- */

const char *vex_store_operation_text(vex_store_operation operation) {
    switch (operation) {
#define OPERATION_TEXT(name, text) \
    case VEX_STORE_##name:         \
        return text;
        VEX_STORE_OPERATION_LIST(OPERATION_TEXT)
#undef OPERATION_TEXT
    case VEX_STORE_OPERATION_COUNT:
        break;
    }
    return "unknown";
}

vex_status vex_lake_describe(vex_lake *lake, vex_lake_stats *out, vex_error *err) {
    if (lake == NULL || out == NULL) {
        return vexi_fail(err, VEX_INVALID, "%s is NULL", lake == NULL ? "lake" : "out");
    }
    size_t size = out->size;
    if (size == 0) {
        return vexi_fail(err, VEX_INVALID, "vex_lake_stats: size is 0");
    }
    lake_keeper *keeper = (lake_keeper *)(void *)lake->keeper;
    vex_lake_stats stats = {.size = size < sizeof stats ? size : sizeof stats};
    for (int k = 0; k < VEX_STORE_OPERATION_COUNT; k++) {
        vexi_store_counter *counter = &keeper->counters.kinds[k];
        vex_store_stats *to = &stats.store[k];
        to->error_count = atomic_load_explicit(&counter->errors, memory_order_relaxed);
        to->byte_count = atomic_load_explicit(&counter->bytes, memory_order_relaxed);
        to->latency_ns = atomic_load_explicit(&counter->latency.sum_ns, memory_order_relaxed);
        for (uint32_t b = 0; b < VEX_LATENCY_BUCKETS; b++) {
            to->latency_buckets[b] =
                atomic_load_explicit(&counter->latency.buckets[b], memory_order_relaxed);
        }
    }
    if (keeper->cache != NULL) {
        vexi_api_remote_stats(keeper->s3, keeper->cache, &stats);
        stats.cache.memory_limit_bytes = keeper->cache_memory_bytes;
        stats.cache.disk_limit_bytes = keeper->cache_disk_bytes;
    }
    vexi_lake_describe(lake->lake, &stats);
    /* Callers of an older header have room for less, those of a newer one keep their rest. */
    memcpy(out, &stats, stats.size);
    return VEX_OK;
}

vex_status vex_lake_probe(vex_lake *lake, vex_error *err) {
    if (lake == NULL) {
        return vexi_fail(err, VEX_INVALID, "lake is NULL");
    }
    return vexi_lake_probe(lake->lake, err);
}
