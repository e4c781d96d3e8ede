/* VexLake: a vector lake in one library.
 *
 * A lake is a folder (file://), or a prefix of an S3 bucket (to read), that holds collections of
 * rows; a row is an id, a float32 vector and optional attributes, payload and typed columns. Writes
 * are durable when a call returns; searches return the nearest rows as Arrow C Data that stays
 * valid until it is released. Every function may be called from any thread unless it says
 * otherwise.
 *
 *     vex_lake *lake;
 *     vex_error err;
 *     if (vex_lake_open("file://lake", NULL, &lake, &err) != VEX_OK) puts(err.message);
 *
 * Life cycle. vex_lake_open gives a handle, vex_lake_close ends it. Arrow results hold what they
 * need by themselves: they may be released after the lake is closed, on any thread.
 *
 * Errors. What can fail returns a vex_status and fills `err` (which may be NULL) without
 * allocating. Outputs are cleared on entry and untouched afterwards on failure.
 *
 * Ownership. Pointers passed in are borrowed for the duration of the call unless marked *taken*.
 * Arrow structures passed out are *given*: the caller calls their release callback. */
#ifndef VEXLAKE_H
#define VEXLAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VEX_VERSION_MAJOR 0
#define VEX_VERSION_MINOR 1
#define VEX_VERSION_PATCH 0

#if defined(VEX_BUILD)
#define VEX_API __attribute__((visibility("default")))
#else
#define VEX_API
#endif
#define VEX_MUST_USE __attribute__((warn_unused_result))

/* ---- Limits ---------------------------------------------------------------------------------- */

#define VEX_DIMENSION_MAX       4096u      /* values per vector                                   */
#define VEX_K_MAX               10000u     /* neighbours per query                                */
#define VEX_QUERIES_MAX         10000u     /* queries per vex_search                              */
#define VEX_NAME_SIZE_MAX       128u       /* bytes of a collection's or column's name            */
#define VEX_ID_SIZE_MAX         512u       /* bytes of a row's id                                 */
#define VEX_ATTRIBUTES_SIZE_MAX (1u << 20) /* bytes of a row's attributes */
#define VEX_PAYLOAD_SIZE_MAX    (64u << 20) /* bytes of a row's payload                            */
#define VEX_STRING_SIZE_MAX     (1u << 20) /* bytes of one value of a string column               */
#define VEX_COLUMNS_MAX         64u        /* typed columns of a collection                       */

/* ---- Status ---------------------------------------------------------------------------------- */

/* name, number, text. The numbers are stable. */
#define VEX_STATUS_LIST(X)                    \
    X(OK, 0, "ok")                            \
    X(INVALID, 1, "invalid argument")         \
    X(NOT_FOUND, 2, "not found")              \
    X(EXISTS, 3, "already exists")            \
    X(CORRUPT, 4, "damaged data")             \
    X(IO, 5, "input/output error")            \
    X(FULL, 6, "no space left")               \
    X(MEMORY, 7, "out of memory")             \
    X(BUSY, 8, "held by another process")     \
    X(CONFLICT, 9, "changed meanwhile")       \
    X(UNSUPPORTED, 10, "not supported")       \
    X(UNKNOWN_OUTCOME, 11, "outcome unknown") \
    X(LIMIT, 12, "limit exceeded")            \
    X(CANCELLED, 13, "cancelled")             \
    X(WOULD_BLOCK, 14, "would block")         \
    X(READ_ONLY, 15, "opened read-only")      \
    X(INTERNAL, 16, "internal error")

typedef enum vex_status {
#define VEX_STATUS_ENUM(name, number, text) VEX_##name = (number),
    VEX_STATUS_LIST(VEX_STATUS_ENUM)
#undef VEX_STATUS_ENUM
} vex_status;

/* Filled by the failing place; owned by the caller; needs no initialisation. */
typedef struct vex_error {
    vex_status status;
    int32_t code; /* errno or HTTP status, 0 if neither                                       */
    int64_t row;  /* index of the offending row of a batch or line of a file, -1 if none      */
    char message[488]; /* one line of UTF-8, NUL-terminated */
} vex_error;

/* The status' text, e.g. "not found". Never NULL. */
VEX_API const char *vex_status_text(vex_status status);

/* "0.1.0". */
VEX_API const char *vex_version(void);

/* ---- Arrow C Data interface (https://arrow.apache.org/docs/format/CDataInterface.html) ---------
 */

#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE

#define ARROW_FLAG_DICTIONARY_ORDERED 1
#define ARROW_FLAG_NULLABLE           2
#define ARROW_FLAG_MAP_KEYS_SORTED    4

struct ArrowSchema {
    const char *format;
    const char *name;
    const char *metadata;
    int64_t flags;
    int64_t n_children;
    struct ArrowSchema **children;
    struct ArrowSchema *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length;
    int64_t null_count;
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

#endif /* ARROW_C_DATA_INTERFACE */

#ifndef ARROW_C_STREAM_INTERFACE
#define ARROW_C_STREAM_INTERFACE

struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};

#endif /* ARROW_C_STREAM_INTERFACE */

/* ---- Values ---------------------------------------------------------------------------------- */

/* Bytes with a length; not NUL-terminated. data == NULL means null (absent). */
typedef struct vex_string {
    const char *data;
    size_t size;
} vex_string;

typedef enum vex_metric {
    VEX_METRIC_L2 = 0, /* distance is the squared Euclidean distance                           */
    VEX_METRIC_COSINE = 1, /* distance is 1 - cosine */
    VEX_METRIC_IP = 2 /* distance is -(inner product)                                         */
} vex_metric;

typedef enum vex_index_kind {
    VEX_INDEX_AUTO = 0, /* flat or IVF by the segment's size */
    VEX_INDEX_FLAT = 1,
    VEX_INDEX_IVF = 2,
    VEX_INDEX_HNSW =
        3 /* IVF, and a graph per segment, built in the background: faster, more memory */
} vex_index_kind;

#define VEX_RECALL_DEFAULT 0.95f

typedef enum vex_type {
    VEX_TYPE_INT64 = 1,
    VEX_TYPE_DOUBLE = 2,
    VEX_TYPE_STRING = 3,
    VEX_TYPE_BOOL = 4,
    VEX_TYPE_TIMESTAMP = 5 /* microseconds since 1970-01-01T00:00:00Z */
} vex_type;

typedef enum vex_durability {
    VEX_DURABILITY_DEFAULT = 0,  /* LAKE on s3://, else ALWAYS */
    VEX_DURABILITY_ALWAYS = 1,   /* synced to this machine's disk before a write returns */
    VEX_DURABILITY_INTERVAL = 2, /* synced every sync_interval_ms: a crash may lose that much */
    VEX_DURABILITY_LAKE = 3      /* s3:// alone: put into the lake before a write returns, so that
                                    the machine and its disk may go */
} vex_durability;

/* A typed column. `name` differs from id, vector, attributes, payload. */
typedef struct vex_column {
    vex_string name;
    vex_type type;
} vex_column;

/* One value for one typed column of a row. */
typedef struct vex_value {
    vex_string column; /* the column's name */
    bool is_null;
    union {
        int64_t int64; /* VEX_TYPE_INT64 and VEX_TYPE_TIMESTAMP */
        double float64;
        bool boolean;
        vex_string string;
    } as;
} vex_value;

/* A row to store. It replaces a row of the same id as a whole: what is not given becomes null.
 * A declared column that `values` does not name takes its value from the key of that name in
 * `attributes`, if there is one; a value of another type fails the call. */
typedef struct vex_row {
    vex_string id;        /* 1..VEX_ID_SIZE_MAX bytes of UTF-8                                    */
    const float *vector;  /* `dimension` finite values; aligned to 4 bytes                        */
    uint32_t dimension;   /* must equal the collection's                                          */
    uint32_t value_count; /* length of values                                                     */
    vex_string attributes; /* a JSON object, or null */
    vex_string payload; /* any bytes, or null                                                   */
    const vex_value *values;
} vex_row;

/* ---- Lakes ----------------------------------------------------------------------------------- */

typedef struct vex_lake vex_lake;

/* Level of a log line: 0 debug, 1 info, 2 warning, 3 error. */
typedef void (*vex_log_function)(void *context, int level, const char *message);

/* Zero means the default for every field; set size to sizeof(vex_lake_options). */
typedef struct vex_lake_options {
    size_t size;
    bool read_only;  /* take no lock, write nothing; sees what is committed or logged
                        when it is opened, later what is committed */
    bool must_exist; /* fail with VEX_NOT_FOUND instead of making a new lake           */
    vex_durability durability;
    uint32_t sync_interval_ms;  /* with VEX_DURABILITY_INTERVAL; default 100                      */
    uint32_t flush_interval_ms; /* age at which a memtable is flushed; default 300,000            */
    uint64_t flush_size_bytes;  /* size at which a memtable is flushed; default 64 MiB            */
    uint64_t memory_limit_bytes; /* all memtables together; above it writes wait, then fail with
                                    VEX_MEMORY; default a share of memory_bytes */
    uint32_t thread_count; /* background threads; default the number of cores, at most 16    */
    uint64_t
        graph_memory_bytes; /* graphs (INDEX hnsw) that searches may use at once; segments
                               beyond it are searched by IVF; default a share of memory_bytes */
    vex_log_function log;   /* called from any thread; default none                           */
    void *log_context;
    /* s3:// alone. NULL: the AWS environment variables, then the AWS files, tell.  */
    const char *s3_endpoint; /* e.g. "http://127.0.0.1:8333"; default AWS                       */
    const char *s3_region;   /* default us-east-1                                               */
    const char *s3_profile;  /* of the AWS files                                                */
    const char *s3_access_key;
    const char *s3_secret_key;
    const char *s3_session_token;
    const char *s3_ca_file; /* certificate authorities; default the system's                   */
    bool s3_insecure;       /* accept any certificate                                          */
    bool s3_virtual_host;   /* bucket.host/name instead of host/bucket/name                    */
    /* s3:// alone: several nodes over one lake. */
    bool takeover;             /* write collections that another node holds, whatever it does; once
                                  for each. Else only those whose holder ended or fell silent */
    uint32_t group_delay_ms;   /* for which a write waits for others to be put with; default 50 */
    uint64_t group_size_bytes; /* at which it does not wait; default 1 MiB */
    uint32_t refresh_interval_ms; /* how often commits and logs of others are looked for, of
                                    collections that were asked in the last minute; default 1,000 */
    uint64_t memory_bytes; /* of this lake: memtables (a quarter, at most 1 GiB), graphs (a half, or
                              three quarters where there is no cache) and the cache of s3:// (a
                              quarter); default three quarters of the machine's, or of what its
                              control group allows */
    uint64_t cache_memory_bytes; /* s3:// alone: the cache in memory; default that share */
    const char *cache_folder;    /* s3:// alone: a folder on a local disk that holds what was read,
                                    for later runs too, and is no other process'; default none */
    uint64_t cache_size_bytes;   /* of that folder, at least 4 MiB; default 10 GiB */
    bool no_prefetch; /* s3:// alone: fetch nothing before somebody asks for it. Else the codes of
                         lists are fetched in the background when the lake is opened, up to a
                         quarter of the cache's memory */
} vex_lake_options;

/* Open the lake at `uri`: "file:///absolute", "file://relative", a plain path, "mem://" for a lake
 * in memory, or "s3://bucket/prefix" for one in a bucket, with read_only. Makes it unless read_only
 * or must_exist; replays the write-ahead log.
 *
 * VEX_INVALID      the URI or an option; of S3 also what the server says of bucket and keys.
 * VEX_IO           the folder or the S3 server cannot be reached.
 * VEX_BUSY         another process holds the lake for writing, or the cache folder.
 * VEX_NOT_FOUND    there is no lake and none may be made.
 * VEX_UNSUPPORTED  the lake was made by a newer format version, or is on s3:// and to be written.
 * VEX_CORRUPT      a log record that was acknowledged does not match its checksum. */
VEX_API VEX_MUST_USE vex_status vex_lake_open(const char *uri, const vex_lake_options *options,
                                              vex_lake **out, vex_error *err);

/* Wait for calls under way in the background, sync the log, release the lock and free the handle.
 * Does not flush: the next open replays the log. The handle is gone whatever the status. The
 * caller makes sure that no other call uses the handle. NULL is fine. */
VEX_API vex_status vex_lake_close(vex_lake *lake, vex_error *err);

/* ---- Collections ----------------------------------------------------------------------------- */

typedef struct vex_collection_options {
    size_t size;
    uint32_t dimension; /* 1..VEX_DIMENSION_MAX */
    vex_metric metric;
    vex_index_kind index;
    uint32_t column_count;
    const vex_column *columns;
    float recall;  /* that searches without nprobe, ef or recall aim at, above 0 to 1 (exact);
                      0: VEX_RECALL_DEFAULT */
    uint32_t bits; /* a dimension in the codes that refine candidates: 1 (none), 4 or 8; 0: 4 */
} vex_collection_options;

/* Create a collection. `name` is 1..VEX_NAME_SIZE_MAX bytes of UTF-8 without control characters.
 * VEX_EXISTS if there is one of that name, whatever its options. */
VEX_API VEX_MUST_USE vex_status vex_collection_create(vex_lake *lake, vex_string name,
                                                      const vex_collection_options *options,
                                                      vex_error *err);

/* Drop a collection and all its rows. VEX_NOT_FOUND if there is none. */
VEX_API VEX_MUST_USE vex_status vex_collection_drop(vex_lake *lake, vex_string name,
                                                    vex_error *err);

/* One record batch with a row per collection, by name: `name` utf8. */
VEX_API VEX_MUST_USE vex_status vex_collection_list(vex_lake *lake, struct ArrowSchema *schema,
                                                    struct ArrowArray *batch, vex_error *err);

typedef struct vex_column_info {
    char name[VEX_NAME_SIZE_MAX + 1];
    vex_type type;
} vex_column_info;

/* What vex_collection_describe tells. */
typedef struct vex_collection_info {
    uint32_t dimension;
    vex_metric metric;
    vex_index_kind index;
    uint32_t column_count;
    uint64_t row_count;          /* live rows                                                     */
    uint64_t memtable_row_count; /* rows and tombstones not yet in a segment                      */
    uint64_t memtable_size_bytes; /* memory they take */
    uint64_t segment_count;
    uint64_t segment_row_count; /* physical rows in segments                                    */
    uint64_t segment_deleted_count; /* of those, hidden by deletion vectors or newer rows */
    uint64_t segment_size_bytes; /* Parquet                                                      */
    uint64_t index_size_bytes;   /* index files                                                  */
    uint64_t damaged_segment_count;   /* that searches refuse unless `partial` */
    uint64_t unindexed_segment_count; /* searched exactly until they are indexed: foreign or with a
                                         damaged index */
    uint64_t graph_count;         /* segments that searches walk by their graph                   */
    uint64_t graph_size_bytes;    /* graph files of those                                        */
    uint64_t graph_missing_count; /* INDEX hnsw: segments whose graph is not built yet           */
    float recall;
    uint32_t bits;
    int64_t version;      /* newest Delta version                                         */
    uint64_t flush_count; /* since the lake was opened                                    */
    char uuid[40];        /* metaData.id                                                  */
    char last_error[256]; /* of background work, empty if none                            */
    vex_column_info columns[VEX_COLUMNS_MAX];
    uint64_t memtable_age_ns; /* of the oldest row not yet in a segment; 0: there is none */
    bool is_written_here;     /* this node may write it without asking: always but on s3:// */
    uint64_t follow_age_ns;   /* s3://, written elsewhere: since this node knew the newest rows; 0:
                                 never asked for, or written here */
} vex_collection_info;

/* On s3://: take over what other nodes wrote up to now, which calls without `consistent` see within
 * the refresh interval. Elsewhere it does nothing. VEX_NOT_FOUND, VEX_IO. */
VEX_API VEX_MUST_USE vex_status vex_collection_refresh(vex_lake *lake, vex_string name,
                                                       vex_error *err);

/* Describe a collection, as it is known here. VEX_NOT_FOUND if there is none. */
VEX_API VEX_MUST_USE vex_status vex_collection_describe(vex_lake *lake, vex_string name,
                                                        vex_collection_info *out, vex_error *err);

/* Progress of a long call, for another thread to watch: read fields with __atomic_load_n. A store
 * of 1 to cancel ends the call with VEX_CANCELLED and nothing imported. */
typedef struct vex_progress {
    uint64_t rows_done;
    uint64_t rows_total; /* 0 while unknown */
    uint32_t phase; /* 0 reading, 1 indexing, 2 committing                                    */
    uint32_t cancel;
} vex_progress;

/* What vex_collection_warm fetches. */
typedef struct vex_warm_options {
    size_t size;
    bool vectors;           /* the vectors and columns too, into the cache */
    vex_progress *progress; /* may be NULL; its rows are those of segments */
} vex_warm_options;

typedef struct vex_warm_stats {
    uint64_t segment_count;
    uint64_t index_bytes;         /* of index files, that are in memory now */
    uint64_t data_bytes;          /* of data files, that are in the cache or passed through it */
    uint64_t graph_count;         /* in memory */
    uint64_t graph_missing_count; /* not there, being loaded, or without room */
    uint64_t left_out_bytes;      /* for which the cache has no room */
} vex_warm_stats;

/* Fetch what searches of a collection need, so that the first one does not: of a lake on s3:// its
 * index files, as far as the memory of the cache reaches, and with options->vectors its data files,
 * as far as its folder or its memory does. Graphs are loaded in the background. Of other lakes
 * there is nothing to fetch. options may be NULL.
 *
 * VEX_NOT_FOUND  no such collection.
 * VEX_CANCELLED  by options->progress; what was fetched stays, as after any failure. */
VEX_API VEX_MUST_USE vex_status vex_collection_warm(vex_lake *lake, vex_string name,
                                                    const vex_warm_options *options,
                                                    vex_warm_stats *out, vex_error *err);

/* ---- Writing --------------------------------------------------------------------------------- */

/* Store rows; when it returns VEX_OK all of them are durable (see vex_durability) and visible.
 * If any row is invalid nothing is stored and err->row is its index. Of two rows with one id in a
 * batch the later wins. A batch of more than about 16 MiB is split: its parts are durable one after
 * another, and of a failing call the first ones may stay.
 *
 * VEX_INVALID          a row: wrong dimension, not finite, zero vector under cosine, bad id, JSON
 *                      that is no object, a column of another type.
 * VEX_NOT_FOUND        no such collection, or no such column.
 * VEX_FULL, VEX_IO     refused: the rows are not and never will be stored.
 * VEX_UNKNOWN_OUTCOME  the log failed in a way that leaves open whether the rows survive a restart.
 * VEX_MEMORY           memtables are over their limit and flushing does not keep up.
 * VEX_LIMIT            a row of more than 80 MiB in all: nothing is stored. */
VEX_API VEX_MUST_USE vex_status vex_put_rows(vex_lake *lake, vex_string collection,
                                             const vex_row *rows, size_t row_count, vex_error *err);

/* The same from Arrow. Each batch is a struct with `id` (utf8 or large_utf8), `vector` (list,
 * large_list or fixed_size_list of float), optionally `attributes` (utf8), `payload` (binary) and
 * declared columns (int64, double, utf8, bool, timestamp[us]; large forms too). `rows` is taken:
 * released on every return. Each batch is one vex_put_rows; *row_count receives the rows stored,
 * which on failure are those of the earlier batches. */
VEX_API VEX_MUST_USE vex_status vex_put(vex_lake *lake, vex_string collection,
                                        struct ArrowArrayStream *rows, uint64_t *row_count,
                                        vex_error *err);

/* Delete rows by id. existed (id_count bytes, may be NULL) receives 1 where a row was there. An id
 * named twice exists once. Durable and visible as vex_put_rows. */
VEX_API VEX_MUST_USE vex_status vex_delete(vex_lake *lake, vex_string collection,
                                           const vex_string *ids, size_t id_count, uint8_t *existed,
                                           vex_error *err);

/* Write the memtable of one collection, or of all where name.data is NULL, as a segment, and take
 * over commits that other engines made. Returns when the commit is visible. */
VEX_API VEX_MUST_USE vex_status vex_flush(vex_lake *lake, vex_string collection, vex_error *err);

/* ---- Reading --------------------------------------------------------------------------------- */

typedef struct vex_get_options {
    size_t size;
    const vex_string *columns; /* any of vector, attributes, payload, typed columns */
    uint32_t column_count;
    bool all_columns; /* every column, in the order above; `columns` is ignored */
    bool no_wait; /* answer only from memory, else VEX_WOULD_BLOCK                             */
} vex_get_options;

/* Fetch rows by id. The batch has a row for each id in the order asked: `id` utf8 (null where no
 * such row is) and then the asked columns: `vector` fixed_size_list<float>, `attributes` utf8,
 * `payload` binary, typed columns as int64, double, utf8, bool, timestamp[us, UTC].
 * options may be NULL (id only); schema may be NULL.
 *
 * VEX_NOT_FOUND  no such collection or column.
 * VEX_LIMIT      more than 2 GiB in one string or binary column. */
VEX_API VEX_MUST_USE vex_status vex_get(vex_lake *lake, vex_string collection,
                                        const vex_string *ids, size_t id_count,
                                        const vex_get_options *options, struct ArrowSchema *schema,
                                        struct ArrowArray *batch, vex_error *err);

/* Fetch random rows, each live row as likely as any other: min(count, live rows) of them, none
 * twice, in random order; the same for the same seed and rows. The batch is as of vex_get.
 *
 * VEX_INVALID    count is above 1,000,000.
 * VEX_NOT_FOUND  no such collection or column. */
VEX_API VEX_MUST_USE vex_status vex_sample(vex_lake *lake, vex_string collection, uint32_t count,
                                           uint64_t seed, const vex_get_options *options,
                                           struct ArrowSchema *schema, struct ArrowArray *batch,
                                           vex_error *err);

/* What one vex_search did, all queries together. */
typedef struct vex_search_stats {
    uint64_t segment_count;     /* segments looked at                                             */
    uint64_t segment_ivf_count; /* of those, searched through their IVF index                     */
    uint64_t segment_skip_count;  /* of those, left out as damaged (partial) */
    uint64_t segment_graph_count; /* of those, searched through their graph                     */
    uint64_t list_count; /* posting lists probed                                           */
    uint64_t hop_count;  /* graph nodes expanded                                           */
    uint64_t code_count; /* rows compared by their codes                                   */
    uint64_t row_count;  /* vectors compared exactly                                       */
    uint64_t page_count; /* Parquet pages decoded for asked columns                        */
    uint64_t read_bytes; /* bytes of those pages                                           */
    /* What was asked of a store that cannot map, caches before it included in none of them. */
    uint64_t step_count;    /* requests that waited for each other; those sent together are one */
    uint64_t request_count; /* requests                                                       */
    uint64_t request_bytes; /* bytes that they asked for                                      */
    uint64_t hit_count;     /* reads that a cache answered instead                            */
    uint64_t read_ns;       /* waiting for those steps; of several threads the longest        */
    uint64_t scan_ns;       /* finding the rows, waiting included                             */
    uint64_t column_ns;     /* asked columns, waiting included                                */
} vex_search_stats;

typedef struct vex_search_options {
    size_t size;
    uint32_t k; /* 1..VEX_K_MAX                                                               */
    uint32_t nprobe; /* posting lists to probe in each segment; then graphs are not used */
    uint32_t ef;     /* beam of graph searches; segments without a graph go by `recall` */
    float recall;    /* that the search aims at, above 0 to 1 (exact); 0: the collection's. Where
                        nprobe    or ef apply, they win */
    bool exact;   /* compare every row                                                          */
    bool partial; /* leave out damaged segments instead of failing                              */
    uint32_t column_count;
    const vex_string *columns; /* as in vex_get_options                                          */
    const vex_string *query_ids; /* instead of `queries`: the vectors of these rows */
    vex_search_stats *stats; /* may be NULL                                                    */
    bool consistent;         /* see what other nodes wrote up to now, not up to a second ago */
} vex_search_options;

/* Search a collection.
 *
 * queries    row-major float32, query_count x dimension, finite; NULL with query_ids.
 * schema     may be NULL.
 * batch      for each query in turn its rows, nearest first: `query` uint32, `id` utf8, `distance`
 *            float64, then the asked columns. A query has min(k, live rows) rows.
 *
 * VEX_INVALID    k, dimension (the message tells both), a value that is not finite, a zero vector
 *                under cosine.
 * VEX_NOT_FOUND  no such collection, column, or row of query_ids.
 * VEX_CORRUPT    a segment failed its checksum; the message names the object.
 * VEX_LIMIT      more than 16,777,216 rows, or more than 2 GiB in one string or binary column.
 *
 * Blocks on storage; do not call from an event loop. */
VEX_API VEX_MUST_USE vex_status vex_search(vex_lake *lake, vex_string collection,
                                           const float *queries, uint32_t query_count,
                                           uint32_t dimension, const vex_search_options *options,
                                           struct ArrowSchema *schema, struct ArrowArray *batch,
                                           vex_error *err);

/* ---- Import and check ------------------------------------------------------------------------ */

/* Settings of vex_import; the collection is made if it is missing. */
typedef struct vex_import_options {
    size_t size;
    vex_string id_column; /* default `id`                                                      */
    vex_string vector_column; /* default `vector`, else the only column that holds vectors */
    vex_string ids_path;      /* npy, fvecs, bvecs: a text file with an id per line; default the
                                 row number                                                        */
    vex_metric metric;      /* of a collection that is made                                      */
    vex_index_kind index;   /* of a collection that is made                                      */
    vex_progress *progress; /* may be NULL                                                       */
    float recall;           /* of a collection that is made; 0: default */
    uint32_t bits;          /* of a collection that is made; 0: default */
    uint64_t segment_size_bytes; /* vectors of a segment; 0: 256 MiB, at most 16 GiB. Larger ones
                                    are searched faster and take memory in proportion to import */
} vex_import_options;

/* Import files as one commit: Parquet, .fvecs, .bvecs, .npy or JSON lines (.jsonl, .ndjson), told
 * apart by their name and first bytes. Rows replace older ones of the same id; of two in the files
 * the later wins. An integer id column becomes its decimal text and stays as a typed column.
 *
 * VEX_INVALID    a file without vectors, ragged or not finite vectors (err->row is the row), ids
 *                that are empty or too long, a column whose type does not fit.
 *
 * Peak memory beyond the mapped input is about two and a half times the vectors of a segment
 * (segment_size_bytes), whatever the files' size. Nothing is imported on failure. */
VEX_API VEX_MUST_USE vex_status vex_import(vex_lake *lake, vex_string collection,
                                           const char *const *paths, size_t path_count,
                                           const vex_import_options *options, uint64_t *row_count,
                                           vex_error *err);

/* Check every checksum of a collection (or of all where name.data is NULL) and that log, Parquet
 * and index agree. The batch has a row per finding: `object` utf8, `problem` utf8; none if all is
 * well. Of a lake on s3:// what the cache holds is not fetched again: open one for it, without
 * cache_folder. *object_count receives the objects checked. schema may be NULL. */
VEX_API VEX_MUST_USE vex_status vex_verify(vex_lake *lake, vex_string collection,
                                           struct ArrowSchema *schema, struct ArrowArray *batch,
                                           uint64_t *object_count, vex_error *err);

/* ---- Watching -------------------------------------------------------------------------------- */

/* Operations on the lake's storage that are counted apart. name, text. */
#define VEX_STORE_OPERATION_LIST(X)                                        \
    X(GET, "get")                     /* byte ranges of an object      */  \
    X(SIZE, "size")                   /* its size                      */  \
    X(MAP, "map")                     /* mapped as a whole: bytes of it */ \
    X(PUT, "put")                     /* written                       */  \
    X(PUT_IF_ABSENT, "put_if_absent") /* the same, if there is none    */  \
    X(LIST, "list")                   /* names by prefix               */  \
    X(REMOVE, "remove")               /* deleted, each object          */  \
    X(LOG_CREATE, "log_create")       /* of the write-ahead log        */  \
    X(LOG_APPEND, "log_append")                                            \
    X(LOG_SYNC, "log_sync")

typedef enum vex_store_operation {
#define VEX_STORE_OPERATION_ENUM(name, text) VEX_STORE_##name,
    VEX_STORE_OPERATION_LIST(VEX_STORE_OPERATION_ENUM)
#undef VEX_STORE_OPERATION_ENUM
        VEX_STORE_OPERATION_COUNT
} vex_store_operation;

#define VEX_LATENCY_BUCKETS 23u

/* What one kind of operation did since the lake was opened. Bucket i of the latencies counts
 * operations of at most 2^(13 + i) nanoseconds that do not belong to the bucket before it; the last
 * one counts all that took longer. Their sum is the number of operations. */
typedef struct vex_store_stats {
    uint64_t error_count; /* failures, apart from VEX_NOT_FOUND and VEX_EXISTS, which are answers */
    uint64_t byte_count;  /* read or written by those that did not fail */
    uint64_t latency_ns;  /* all together */
    uint64_t latency_buckets[VEX_LATENCY_BUCKETS];
} vex_store_stats;

/* Requests to an S3 server that are counted apart. name, text. */
#define VEX_REQUEST_LIST(X)                             \
    X(GET, "get")   /* bytes of an object          */   \
    X(HEAD, "head") /* whether it is there, its size */ \
    X(PUT, "put")                                       \
    X(LIST, "list")                                     \
    X(DELETE, "delete")                                 \
    X(MULTIPART, "multipart") /* parts of an upload          */

typedef enum vex_request {
#define VEX_REQUEST_ENUM(name, text) VEX_REQUEST_##name,
    VEX_REQUEST_LIST(VEX_REQUEST_ENUM)
#undef VEX_REQUEST_ENUM
        VEX_REQUEST_COUNT
} vex_request;

/* HTTP requests of one kind since the lake was opened, each attempt for itself. */
typedef struct vex_request_stats {
    uint64_t request_count;  /* sent, those below too */
    uint64_t retry_count;    /* that repeat one that failed */
    uint64_t hedge_count;    /* second ones beside a slow first */
    uint64_t error_count;    /* that failed; 404 and 412 are answers */
    uint64_t throttle_count; /* of them, answered "slow down" */
    uint64_t sent_bytes;     /* of bodies */
    uint64_t received_bytes;
    uint64_t latency_ns;                           /* of those that were answered, all together */
    uint64_t latency_buckets[VEX_LATENCY_BUCKETS]; /* as of vex_store_stats */
} vex_request_stats;

/* The cache of a lake on s3://. Reads count blocks of 64 KiB: each is answered by the memory, the
 * folder or the store. */
typedef struct vex_cache_stats {
    uint64_t memory_read_count;
    uint64_t memory_read_bytes; /* those that were asked for */
    uint64_t disk_read_count;
    uint64_t disk_read_bytes; /* of whole blocks, as below */
    uint64_t store_read_count;
    uint64_t store_read_bytes;
    uint64_t shared_count;      /* reads that waited for the block of another one */
    uint64_t passed_count;      /* reads of what is never cached */
    uint64_t filled_bytes;      /* that came from what was written */
    uint64_t distrusted_count;  /* objects forgotten because they failed a checksum */
    uint64_t memory_size_bytes; /* now */
    uint64_t memory_limit_bytes;
    uint64_t memory_eviction_count;
    uint64_t disk_size_bytes; /* now */
    uint64_t disk_limit_bytes;
    uint64_t disk_eviction_count;
    uint64_t disk_written_bytes;
    uint64_t disk_error_count;   /* failures of the folder's disk */
    uint64_t disk_corrupt_count; /* blocks of the folder that failed their checksum */
} vex_cache_stats;

/* What vex_lake_describe tells. Set size to sizeof(vex_lake_stats). */
typedef struct vex_lake_stats {
    size_t size;
    vex_store_stats store[VEX_STORE_OPERATION_COUNT];
    uint64_t memtable_size_bytes;  /* all collections: what memory_limit_bytes limits */
    uint64_t memtable_limit_bytes; /* that limit */
    uint64_t graph_size_bytes;     /* of the graphs in memory */
    uint64_t graph_limit_bytes;
    uint64_t log_file_count;     /* files of the write-ahead log that are still needed */
    uint64_t log_size_bytes;     /* of those */
    uint64_t log_unsynced_bytes; /* acknowledged and not yet synced (VEX_DURABILITY_INTERVAL) */
    bool log_failed; /* the last append or sync failed: the next write begins a new file first */
    bool store_away; /* s3:// alone, as all below: the server does not answer, and what needs it
                        fails at once */
    uint64_t store_away_count; /* how often it went */
    vex_cache_stats cache;
    vex_request_stats requests[VEX_REQUEST_COUNT];
} vex_lake_stats;

/* Counters and gauges of the lake. Asks no storage. */
VEX_API VEX_MUST_USE vex_status vex_lake_describe(vex_lake *lake, vex_lake_stats *out,
                                                  vex_error *err);

/* Whether the lake's storage answers: one small operation on it. Blocks as long as that does. */
VEX_API VEX_MUST_USE vex_status vex_lake_probe(vex_lake *lake, vex_error *err);

/* The operation's text, e.g. "get". Never NULL. */
VEX_API const char *vex_store_operation_text(vex_store_operation operation);

/* The request's text, e.g. "get". Never NULL. */
VEX_API const char *vex_request_text(vex_request request);

#ifdef __cplusplus
}
#endif

#endif /* VEXLAKE_H */
