/* The S3 store: objects in a bucket of any server that speaks S3 (SeaweedFS, MinIO, versitygw,
 * AWS), behind the table of store.h.
 *
 *     vexi_s3_options options = {.size = sizeof options};
 *     vexi_s3_settings *settings = ...;
 *     VEX_TRY(vexi_s3_settings_load("s3://bucket/prefix", &options, vexi_s3_environment, NULL,
 *                                   settings, err));
 *     VEX_TRY(vexi_store_s3_create(env, settings, &store, err));
 *     VEX_TRY(vexi_store_s3_check(store, err));   reachable, bucket there, keys accepted
 *     VEX_TRY(vexi_store_s3_probe(store, err));   put_if_absent is safe; before the first write
 *
 * Statuses. A store that cannot be reached, or that answers 5xx until the retries are used up, is
 * VEXI_S3_UNAVAILABLE, and its message begins with "store unavailable". What a person must change
 * (bucket, keys, region, clock, certificate) is VEX_INVALID with a message that says so. A commit
 * whose answer was lost and that could not be read back is VEX_UNKNOWN_OUTCOME. An object that
 * changed between the requests of one get is VEX_CONFLICT. No message holds a secret.
 *
 * Keys that expire. A server that does not take the keys any more is not asked again with the same,
 * but where they came from a profile they are read once more, and if they are others the request is
 * repeated with them: whoever renews them in ~/.aws/credentials need not start the store anew. */
#ifndef VEXI_STORE_S3_H
#define VEXI_STORE_S3_H

#include "store/store.h"

/* One place, should the public list get a status of its own for it. */
#define VEXI_S3_UNAVAILABLE VEX_IO

enum { VEXI_S3_LATENCY_BUCKETS = 96 }; /* quarter octaves of microseconds; see s3_pace.c */

/* What the command line says, each NULL or 0 where it says nothing. Strings are borrowed for the
 * call. */
typedef struct vexi_s3_options {
    size_t size; /* of this struct */
    const char *endpoint;
    const char *region;
    const char *profile;
    const char *access_key;
    const char *secret_key;
    const char *session_token;
    const char *ca_file;
    bool insecure;     /* no check of the server's certificate: never the default */
    bool virtual_host; /* bucket.host/name instead of host/bucket/name */
} vexi_s3_options;

/* Everything a store needs to know, filled by vexi_s3_settings_load or by a test. Numbers of 0 take
 * the default. Holds secrets: wipe it after use (vexi_s3_settings_wipe). */
typedef struct vexi_s3_settings {
    char bucket[64];
    char prefix[512]; /* "" or a name without '/' at its end */
    char endpoint[512];
    char region[64];
    char access_key[256];
    char secret_key[256];
    char session_token[8192]; /* "" for none */
    char ca_file[1024];       /* "" for the system's */
    /* Where keys came from that may be replaced there while the store is open: a profile of the AWS
     * files. "" for keys of the options or the environment. */
    char keys_profile[128];
    char keys_files[2][1024]; /* credentials, config; "" for none */
    bool insecure;
    bool virtual_host;

    uint32_t connection_count_max; /* 64 */
    uint32_t connect_timeout_ms;   /* 3,000 */
    uint32_t stall_timeout_ms;     /* 10,000: no byte either way for so long ends an attempt */
    uint32_t total_timeout_ms;     /* 60,000: of one request with its retries */
    uint32_t attempt_count_max;    /* 8 */
    uint32_t backoff_base_ms;      /* 50 */
    uint32_t backoff_max_ms;       /* 5,000 */
    uint32_t suspect_ms;           /* 3,000 without any answer: it is asked whether it is there */
    uint32_t probe_interval_ms;    /* 1,000: that again, while it is not */
    uint32_t probe_timeout_ms;     /* 2,000: of that question */
    uint32_t retry_budget;         /* 200 retries, of which every success gives one back */
    uint32_t hedge_percentile;     /* 0: no second GET; else 50 .. 99 */
    uint64_t seed;                 /* of the jitter; 0 takes one from the environment */
    size_t gap_size_max;           /* 64 KiB: nearer ranges of one get become one request */
    size_t part_size;              /* 8 MiB: larger ranges and objects travel in such parts */
    size_t multipart_size_min;     /* 16 MiB: objects of this size are uploaded in parts */
} vexi_s3_settings;

/* A variable of the process' environment, as vexi_s3_settings_load asks for them. */
typedef const char *vexi_s3_lookup(void *context, const char *name);
const char *vexi_s3_environment(void *context, const char *name);

/* Fill settings for a lake's address ("s3://bucket/prefix"): the options first, then the AWS
 * environment variables (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
 * AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_CA_BUNDLE, AWS_PROFILE), then the
 * profile's entries in the AWS files. VEX_INVALID tells what is missing or wrong. */
vex_status vexi_s3_settings_load(const char *uri, const vexi_s3_options *options,
                                 vexi_s3_lookup *lookup, void *context, vexi_s3_settings *out,
                                 vex_error *err);
void vexi_s3_settings_wipe(vexi_s3_settings *settings);

/* Read the keys again where they came from. *changed tells whether they are others now; keys that
 * are missing, incomplete or not to be read leave those of the settings as they are (false). */
void vexi_s3_settings_renew_keys(vexi_s3_settings *settings, bool *changed);

/* A store over the bucket; settings are copied. Asks no network. Its destroy ends what other
 * threads have in flight (VEX_CANCELLED for them) and waits until they have left. Neither maps nor
 * keeps logs or locks. */
vex_status vexi_store_s3_create(const vexi_env *env, const vexi_s3_settings *settings,
                                vexi_store **out, vex_error *err);

/* One request that tells whether server, bucket and keys are as they should be. It takes ten
 * seconds at most: somebody waits for a start and its reason not to happen. */
vex_status vexi_store_s3_check(vexi_store *store, vex_error *err);

/* Race put_if_absent on scratch objects below .vexlake/probe/. VEX_UNSUPPORTED where two callers
 * won, or none did: such a server loses commits and must not be written to. */
vex_status vexi_store_s3_probe(vexi_store *store, vex_error *err);

/* The kinds of requests that are counted apart. */
typedef enum vexi_s3_kind {
    VEXI_S3_GET,
    VEXI_S3_HEAD,
    VEXI_S3_PUT,
    VEXI_S3_LIST,
    VEXI_S3_DELETE,
    VEXI_S3_MULTIPART, /* create, parts, complete, abort */
    VEXI_S3_KIND_COUNT
} vexi_s3_kind;

typedef struct vexi_s3_counters {
    uint64_t requests;       /* HTTP requests that were sent, retries and second ones too */
    uint64_t retries;        /* of them, those that repeat one that failed */
    uint64_t hedges;         /* of them, second ones beside a slow first */
    uint64_t errors;         /* attempts that failed, 404 and 412 apart */
    uint64_t throttled;      /* of them, those answered "slow down" */
    uint64_t sent_bytes;     /* of bodies */
    uint64_t received_bytes; /* of bodies */
    uint64_t latency_ns;     /* sum over attempts that were answered */
    uint64_t latency_count;
    uint64_t latency_buckets[VEXI_S3_LATENCY_BUCKETS];
} vexi_s3_counters;

/* Whether the server is there (s3_breaker.c). While it is not, every call fails at once. */
typedef struct vexi_s3_health {
    bool is_away;
    uint64_t away_count; /* how often it went */
} vexi_s3_health;

vexi_s3_health vexi_store_s3_health(vexi_store *store);

/* "get", "head", ... */
const char *vexi_s3_kind_name(vexi_s3_kind kind);
/* Upper bound of a latency bucket, in nanoseconds. */
uint64_t vexi_s3_latency_bound_ns(size_t bucket);
/* Counters of every kind so far, consistent among themselves. `store` is an S3 store. */
void vexi_store_s3_counters(vexi_store *store, vexi_s3_counters out[VEXI_S3_KIND_COUNT]);

#endif
