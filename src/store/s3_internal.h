/* What the files of the S3 store share, in the order in which a request passes through them:
 * settings -> request (s3_request.c) -> plan of ranges (s3_plan.c) -> client (s3_client.c: when and
 * how often) -> transfer (s3_transfer.c: one HTTP exchange, signed by s3_sign.c) -> meaning of the
 * answer (s3_error.c, s3_xml.c). store_s3.c puts the operations together. */
#ifndef VEXI_STORE_S3_INTERNAL_H
#define VEXI_STORE_S3_INTERNAL_H

#include "base/buffer.h"
#include "store/s3.h"

enum {
    VEXI_S3_HEADERS_MAX = 12,
    VEXI_S3_HEADER_SIZE_MAX = 8448,   /* a session token is the longest */
    VEXI_S3_PATH_SIZE_MAX = 3 * 1600, /* bucket, prefix and name, every byte encoded */
    VEXI_S3_QUERY_SIZE_MAX = 8192,
    VEXI_S3_ERROR_BODY_SIZE_MAX = 16384,
    VEXI_S3_BODY_SIZE_MAX = 64 << 20, /* of a listing page or another XML answer */
    VEXI_S3_XML_TEXT_SIZE_MAX = 4096,
    VEXI_S3_PUT_ID_SIZE = 36 /* a UUID as text */
};

/* ---- s3_sign.c: AWS Signature Version 4 -------------------------------------------------------
 */

typedef struct vexi_s3_header {
    const char *name; /* lower case */
    const char *value;
} vexi_s3_header;

/* The day's key, kept because its four HMACs are the larger part of signing. One thread. */
typedef struct vexi_s3_signer {
    const char *access_key; /* borrowed */
    const char *secret_key; /* borrowed */
    const char *region;     /* borrowed */
    const char *service;    /* borrowed */
    char day[9];            /* of `key`; "" for none */
    uint8_t key[32];
} vexi_s3_signer;

enum { VEXI_S3_DATE_SIZE = 17 }; /* "20130524T000000Z" and NUL */

/* Seconds since 1970 as the date of a request. */
void vexi_s3_date(int64_t seconds, char out[VEXI_S3_DATE_SIZE]);

/* Append the value of the Authorization header. path and query are canonical; headers are those to
 * be signed (host and x-amz-* at least), in any order, count <= VEXI_S3_HEADERS_MAX; payload_hash
 * is hexadecimal or UNSIGNED-PAYLOAD. Failure shows in the buffer. */
void vexi_s3_sign(vexi_s3_signer *signer, const char *date, const char *method, const char *path,
                  const char *query, const vexi_s3_header *headers, size_t count,
                  const char *payload_hash, vexi_buffer *out);
/* SHA-256 as 64 hexadecimal digits and NUL. */
void vexi_s3_sha256_hex(const void *data, size_t size, char out[65]);
/* The key for a day, region and service, for the test vectors. */
void vexi_s3_signing_key(const char *secret_key, const char *day, const char *region,
                         const char *service, uint8_t out[32]);

/* ---- s3_request.c: canonical addresses and bodies ----------------------------------------------
 */

/* Percent-encode as SigV4 wants it: all but [A-Za-z0-9._~-], and '/' where keep_slash. */
void vexi_s3_encode(vexi_buffer *out, const char *text, bool keep_slash);

/* Where requests go: scheme, host as in the Host header, and the path before the key. */
typedef struct vexi_s3_address {
    char base[640]; /* "https://bucket.host:port" or "http://host" */
    char host[576];
    char bucket_path[72]; /* "/bucket" or "" */
    bool is_https;
    bool is_loopback;
} vexi_s3_address;

/* From settings' endpoint, bucket and virtual_host. VEX_INVALID. */
vex_status vexi_s3_address_make(const vexi_s3_settings *settings, vexi_s3_address *out,
                                vex_error *err);

/* One query parameter; value NULL gives "name=". Parameters of a query stand in the order of their
 * encoded names, which the caller knows. */
void vexi_s3_query_add(vexi_buffer *query, const char *name, const char *value);

/* "base64(big-endian CRC-32C)" and NUL over the parts. */
enum { VEXI_S3_CRC_SIZE = 9 };
void vexi_s3_crc_text(const vexi_span *parts, size_t count, char out[VEXI_S3_CRC_SIZE]);
/* "base64(MD5)" and NUL; false where the system's OpenSSL has no MD5 (FIPS). */
enum { VEXI_S3_MD5_SIZE = 25 };
bool vexi_s3_md5_text(vexi_span data, char out[VEXI_S3_MD5_SIZE]);
/* Base64 of size bytes; out has room for (size + 2) / 3 * 4 + 1. */
void vexi_s3_base64(const uint8_t *data, size_t size, char *out);

/* What to send as start-after so that no server, whatever the order of its listing, leaves out a
 * name that sorts behind `after` in byte order; "" to send none. See the essay in s3_request.c. */
void vexi_s3_start_after(const char *prefix, const char *after, char *out, size_t out_size);

/* ---- s3_plan.c: ranges into requests -----------------------------------------------------------
 */

/* One request of a get: bytes start .. end - 1 of the object, and the wanted ranges that they
 * touch: sorted[first .. first + count - 1]. */
typedef struct vexi_s3_span {
    uint64_t start;
    uint64_t end;
    size_t first;
    size_t count;
} vexi_s3_span;

/* sorted holds `count` non-empty ranges by offset, none of which overflows. Nearer than gap_size
 * become one span; spans above part_size are cut into equal ones. *spans (by vexi_free) and
 * *span_count are set on success. */
vex_status vexi_s3_plan(const vexi_env *env, const vexi_range *sorted, size_t count,
                        size_t gap_size, size_t part_size, vexi_s3_span **spans, size_t *span_count,
                        vex_error *err);
void vexi_s3_sort_ranges(vexi_range *ranges, size_t count);
/* Copy the object's bytes [offset, offset + size) to whatever of the ranges wants them. */
void vexi_s3_scatter(const vexi_range *ranges, size_t count, uint64_t offset, const uint8_t *data,
                     size_t size);

/* ---- s3_pace.c: when to try again, and how much at once ----------------------------------------
 */

typedef struct vexi_s3_pace {
    uint64_t random;
    uint32_t base_ms;
    uint32_t max_ms;
    double tokens; /* retries left */
    double tokens_max;
    double window; /* requests that may be in flight */
    double window_max;
    uint64_t cut_ns;  /* when the window was last cut */
    uint64_t hold_ns; /* nothing starts before this */
} vexi_s3_pace;

void vexi_s3_pace_init(vexi_s3_pace *pace, const vexi_s3_settings *settings, uint64_t seed);
/* How long to wait before attempt `attempt` (2 for the first retry); retry_after_ms is what the
 * server asked for, 0 for nothing. */
uint64_t vexi_s3_pace_delay_ns(vexi_s3_pace *pace, uint32_t attempt, uint32_t retry_after_ms);
/* Take a retry from the budget; false when there is none left. */
bool vexi_s3_pace_take(vexi_s3_pace *pace);
void vexi_s3_pace_success(vexi_s3_pace *pace);
void vexi_s3_pace_throttled(vexi_s3_pace *pace, uint64_t now_ns, uint32_t retry_after_ms);
/* The server is back: the budget of retries is whole again. */
void vexi_s3_pace_refill(vexi_s3_pace *pace);

/* The latency bucket of a duration, and the duration below which `percent` of the counts lie (0
 * when there are fewer than 100). */
size_t vexi_s3_latency_bucket(uint64_t duration_ns);
uint64_t vexi_s3_latency_percentile_ns(const uint64_t *buckets, uint32_t percent);

/* ---- s3_breaker.c: whether the server is there -------------------------------------------------
 */

typedef struct vexi_s3_breaker {
    bool is_open; /* calls fail at once */
    bool is_probing;
    bool has_answered; /* ever */
    uint64_t suspect_ns;
    uint64_t interval_ns;
    uint64_t
        waiting_ns;     /* since when there is nothing good, and somebody waits for it; 0: nobody */
    uint64_t probed_ns; /* when the last probe began */
    uint64_t opened_ns; /* the last time */
    uint64_t open_count; /* how often it opened */
} vexi_s3_breaker;

typedef enum vexi_s3_breaker_change {
    VEXI_S3_BREAKER_SAME,
    VEXI_S3_BREAKER_OPENED,
    VEXI_S3_BREAKER_CLOSED
} vexi_s3_breaker_change;

void vexi_s3_breaker_init(vexi_s3_breaker *breaker, uint64_t suspect_ns, uint64_t interval_ns);
/* A request was sent. */
void vexi_s3_breaker_waits(vexi_s3_breaker *breaker, uint64_t now_ns);
/* An answer that a working server gives, or a part of one. others_wait: there are more requests. */
void vexi_s3_breaker_good(vexi_s3_breaker *breaker, uint64_t now_ns, bool others_wait);
/* When a probe is to be sent; UINT64_MAX for never. */
uint64_t vexi_s3_breaker_due_ns(const vexi_s3_breaker *breaker);
void vexi_s3_breaker_probe(vexi_s3_breaker *breaker, uint64_t now_ns);
/* The probe ended. */
vexi_s3_breaker_change vexi_s3_breaker_probed(vexi_s3_breaker *breaker, uint64_t now_ns,
                                              bool answered, bool others_wait);

/* ---- s3_xml.c: answers -------------------------------------------------------------------------
 */

typedef struct vexi_s3_page {
    bool is_truncated;
    char token[VEXI_S3_XML_TEXT_SIZE_MAX]; /* to ask for the next page */
} vexi_s3_page;

/* Growing list of entries; names in the caller's arena. */
typedef struct vexi_s3_entries {
    vexi_list_entry *entries; /* by vexi_free */
    size_t count;
    size_t capacity;
} vexi_s3_entries;

/* One page of ListObjectsV2 into entries. Names lose `strip` (the store's prefix with its '/', or
 * ""); keys outside it, folder markers (keys that end with '/') and names that store.h does not
 * allow are left out. VEX_CORRUPT for anything that is no such page. */
vex_status vexi_s3_parse_list(const vexi_env *env, vexi_span body, const char *strip,
                              vexi_arena *arena, vexi_s3_entries *entries, vexi_s3_page *page,
                              vex_error *err);

/* An <Error> answer; fields are "" where they are missing. False if it is none. */
typedef struct vexi_s3_answer_error {
    char code[64];
    char message[200];
    char region[64];
} vexi_s3_answer_error;
bool vexi_s3_parse_error(vexi_span body, vexi_s3_answer_error *out);

/* The first <Error> of a DeleteResult, if any. VEX_CORRUPT if it is no DeleteResult. */
vex_status vexi_s3_parse_delete(vexi_span body, bool *failed, vexi_s3_answer_error *out,
                                char key[VEXI_STORE_NAME_SIZE_MAX + 1], vex_error *err);

/* UploadId of an InitiateMultipartUploadResult. */
vex_status vexi_s3_parse_upload_id(vexi_span body, char *out, size_t out_size, vex_error *err);

/* Append `text` with &, <, > and quotes escaped. */
void vexi_s3_xml_escape(vexi_buffer *out, const char *text);

/* ---- s3_client.c: requests in flight -----------------------------------------------------------
 */

typedef struct vexi_s3_client vexi_s3_client;
typedef struct vexi_s3_group vexi_s3_group;

typedef enum vexi_s3_sink {
    VEXI_S3_SINK_BODY,  /* into `body`, at most body_limit bytes */
    VEXI_S3_SINK_RANGES /* into the targets of `ranges` */
} vexi_s3_sink;

/* Why an attempt failed, as far as the client's next step depends on it. */
typedef enum vexi_s3_failure {
    VEXI_S3_DONE = 0,
    VEXI_S3_FINAL,       /* asking again would change nothing */
    VEXI_S3_AGAIN,       /* worth another attempt */
    VEXI_S3_THROTTLED,   /* worth another one, and slower */
    VEXI_S3_KEYS,        /* worth another one if there are other keys by then; it did nothing */
    VEXI_S3_UNREACHABLE, /* worth another one; the server did not answer at all */
    VEXI_S3_UNSENT       /* the same, and it certainly never saw the request */
} vexi_s3_failure;

/* What came back. */
typedef struct vexi_s3_answer {
    int http_status;     /* 0 when there was no answer */
    uint64_t total_size; /* the object's, UINT64_MAX when unknown */
    char etag[96];
    char put_id[VEXI_S3_PUT_ID_SIZE + 1]; /* x-amz-meta-vexlake-put */
    char crc[VEXI_S3_CRC_SIZE];           /* x-amz-checksum-crc32c */
    uint8_t *body;                        /* by vexi_free; NULL when empty */
    size_t body_size;
    size_t body_capacity;
    vexi_s3_answer_error error;
} vexi_s3_answer;

/* One request with its retries. The first part is the caller's, and unchanged until run returns;
 * the second the answer; the third the client's. */
typedef struct vexi_s3_call {
    vexi_s3_kind kind;
    const char *what; /* for messages: the object's name, or the prefix of a listing */
    const char *method;
    const char *path;  /* encoded */
    const char *query; /* encoded, "" for none */
    vexi_s3_header headers[VEXI_S3_HEADERS_MAX];
    size_t header_count;
    bool has_body;
    const vexi_span *parts;
    size_t part_count;
    uint64_t body_size;
    vexi_s3_sink sink;
    size_t body_limit;
    bool is_ranged; /* ask for [start, end) only */
    uint64_t start;
    uint64_t end;
    const vexi_range *ranges;
    size_t range_count;
    bool is_independent;        /* its failure does not end the group's other calls */
    uint32_t delay_ms;          /* before its first attempt */
    uint32_t attempt_count_max; /* 0: the settings' */
    uint32_t total_timeout_ms;  /* 0: the settings' */
    bool is_probe;              /* the breaker's: on a connection of its own, without a group */

    vex_status status;
    vex_error error;
    vexi_s3_answer answer;
    bool is_doubtful; /* some attempt may have been carried out although it failed */
    uint32_t attempt_count;

    vexi_s3_group *group;
    struct vexi_s3_call *next;
    uint64_t due_ns;
    uint64_t deadline_ns;
    uint32_t active_count; /* transfers under way */
    bool was_hedged;
    bool is_ended;
    vexi_s3_failure failure;
} vexi_s3_call;

vex_status vexi_s3_client_create(const vexi_env *env, const vexi_s3_settings *settings,
                                 vexi_s3_client **out, vex_error *err);
void vexi_s3_client_destroy(vexi_s3_client *client);
const vexi_s3_settings *vexi_s3_client_settings(const vexi_s3_client *client);
const vexi_s3_address *vexi_s3_client_address(const vexi_s3_client *client);
void vexi_s3_client_counters(vexi_s3_client *client, vexi_s3_counters out[VEXI_S3_KIND_COUNT]);
vexi_s3_health vexi_s3_client_health(vexi_s3_client *client);

/* Around every operation of the store, so that destroying it can wait for those under way. */
void vexi_s3_client_enter(vexi_s3_client *client);
void vexi_s3_client_leave(vexi_s3_client *client);

/* Carry out all calls together; returns when every one has ended. Once one has failed for good,
 * those not yet ended are given up (VEX_CANCELLED). Returns the status of the first that failed
 * otherwise, with its message. Answers are released by vexi_s3_call_deinit. */
vex_status vexi_s3_run(vexi_s3_client *client, vexi_s3_call *calls, size_t count, vex_error *err);
void vexi_s3_call_deinit(vexi_s3_client *client, vexi_s3_call *call);
void vexi_s3_call_header(vexi_s3_call *call, const char *name, const char *value);

/* ---- s3_transfer.c: one HTTP exchange ----------------------------------------------------------
 */

typedef struct vexi_s3_transfer {
    void *easy; /* CURL * */
    const vexi_env *env;
    vexi_s3_call *call; /* NULL while idle */
    bool is_hedge;
    bool saw_header;
    void *header_list;    /* struct curl_slist * */
    uint64_t keys_number; /* which keys it was signed with */
    vexi_s3_answer answer;
    uint64_t position;      /* in the object, of the next byte of a ranged answer */
    uint64_t received_size; /* body bytes */
    uint64_t content_size;  /* Content-Length, UINT64_MAX when unknown */
    bool is_complete;       /* all wanted bytes are here, the rest of the answer is not */
    bool is_too_large;
    bool is_wrong_range;
    bool no_memory;
    int64_t server_time; /* Date header, seconds; 0 unknown */
    uint32_t retry_after_ms;
    long certificate;    /* 0, or OpenSSL's code of what is wrong with the server's certificate */
    uint8_t *hedge_data; /* a hedge writes here, not to the targets */
    size_t part_index;   /* of the request's body */
    size_t part_offset;
    uint64_t sent_size;
    uint64_t started_ns;
    uint64_t progress_ns;
} vexi_s3_transfer;

vex_status vexi_s3_transfer_init(vexi_s3_transfer *transfer, const vexi_env *env, vex_error *err);
void vexi_s3_transfer_deinit(vexi_s3_transfer *transfer);
/* Prepare the easy handle for the call. VEX_MEMORY. */
vex_status vexi_s3_transfer_begin(vexi_s3_transfer *transfer, vexi_s3_call *call, bool is_hedge,
                                  const vexi_s3_settings *settings, const vexi_s3_address *address,
                                  vexi_s3_signer *signer, vex_error *err);
/* Free what belongs to this exchange; the easy handle stays. */
void vexi_s3_transfer_end(vexi_s3_transfer *transfer);

/* ---- s3_error.c: what an answer means ----------------------------------------------------------
 */

/* curl_code is CURLE_OK or why there is no whole answer; timeout_text is NULL or what ran out. On
 * VEXI_S3_DONE `status` is VEX_OK and err untouched. */
vexi_s3_failure vexi_s3_judge(const vexi_s3_transfer *transfer, int curl_code,
                              const char *timeout_text, const vexi_s3_settings *settings,
                              const vexi_s3_address *address, int64_t now_seconds,
                              vex_status *status, vex_error *err);

/* ---- s3_multipart.c ----------------------------------------------------------------------------
 */

/* Upload an object in parts; all or nothing. path is the object's, encoded. */
vex_status vexi_s3_multipart_put(vexi_s3_client *client, const char *name, const char *path,
                                 const vexi_span *parts, size_t count, uint64_t size,
                                 const vexi_env *env, vex_error *err);

/* ---- store_s3.c --------------------------------------------------------------------------------
 */

typedef struct vexi_s3_store {
    vexi_store base;
    vexi_s3_client *client;
} vexi_s3_store;

/* The S3 store that `store` is; anything else is our own mistake. */
vexi_s3_store *vexi_s3_store_of(vexi_store *store);
/* Append the encoded path of an object, or of the bucket when name is NULL. */
void vexi_s3_object_path(const vexi_s3_client *client, const char *name, vexi_buffer *out);

#endif
