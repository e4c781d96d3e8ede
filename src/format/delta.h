/* Delta Lake log: commits, actions and the table state that they add up to.
 *
 * Follows the Delta transaction protocol
 * (https://github.com/delta-io/delta/blob/master/PROTOCOL.md). Pure functions over bytes; names of
 * objects are relative to the table root (<folder>/data). What we do not know is ignored, as the
 * protocol asks, except features that a reader must know: those are VEX_UNSUPPORTED by name. */
#ifndef VEXI_FORMAT_DELTA_H
#define VEXI_FORMAT_DELTA_H

#include "base/buffer.h"
#include "format/row.h"

enum { VEXI_DELTA_COMMIT_SIZE_MAX = 256 << 20 };

/* "00000000000000000007.json" and back (-1 if the name is no commit). out holds 26 bytes. */
void vexi_delta_commit_name(int64_t version, char out[26]);
int64_t vexi_delta_commit_version(const char *name);

/* Deletion-vector descriptor. */
typedef struct vexi_delta_dv {
    char storage; /* 'u' file by uuid, 'i' inline, 'p' absolute path; 0: there is none        */
    vex_string encoded; /* pathOrInlineDv */
    uint32_t offset; /* 'u', 'p': where the data's size stands in the file                      */
    uint32_t size_bytes;
    uint64_t cardinality;
} vexi_delta_dv;

/* Where our index file is and how to trust it: the add's tags (a hint; `index_path` null: none). */
typedef struct vexi_delta_index {
    vex_string path; /* relative to the collection's folder, e.g. index/<uuid>.vector.ivf.bin */
    uint64_t size_bytes;
    uint32_t head_size;
    uint32_t head_crc;
} vexi_delta_index;

typedef struct vexi_delta_add {
    vex_string path;     /* percent-decoded */
    vex_string raw_path; /* as another engine encoded it, to be written back unchanged (engines
                            compare it byte by byte); null: the encoding of `path` */
    uint64_t size_bytes;
    int64_t modification_time_ms;
    int64_t row_count; /* stats.numRecords, physical; -1 unknown */
    bool data_change;
    vexi_delta_dv dv;
    vexi_delta_index index;
} vexi_delta_add;

typedef struct vexi_delta_remove {
    vex_string path;
    vex_string raw_path; /* of the add that it removes */
    int64_t deletion_timestamp_ms;
    bool data_change;
    uint64_t size_bytes;
    vexi_delta_dv dv; /* of the logical file that goes */
} vexi_delta_remove;

typedef struct vexi_delta_pair {
    vex_string key;
    vex_string value;
} vexi_delta_pair;

typedef struct vexi_delta_metadata {
    vex_string id; /* null: the commit has none */
    vex_string name;
    int64_t created_time_ms;
    vexi_schema schema; /* from schemaString and vexlake.* configuration; on reading: dimension 0
                           where the table is not ours */
    size_t configuration_count;
    const vexi_delta_pair *configuration;
    vex_string schema_string; /* as read, so that writing this metadata again keeps columns that
                                 `schema` leaves out; null: made from `schema` */
    size_t partition_column_count; /* foreign tables: we refuse > 0 */
} vexi_delta_metadata;

typedef struct vexi_delta_protocol {
    int32_t reader_version; /* 0: the commit has none */
    int32_t writer_version;
    bool deletion_vectors; /* feature listed */
    /* Features as listed, reader's first; written back together with deletionVectors. */
    size_t reader_feature_count;
    size_t writer_feature_count;
    const vex_string *reader_features;
    const vex_string *writer_features;
} vexi_delta_protocol;

typedef struct vexi_delta_txn {
    vex_string app_id;
    int64_t version;
} vexi_delta_txn;

/* One commit. Arrays and strings in the arena. */
typedef struct vexi_delta_commit {
    vexi_delta_protocol protocol;
    vexi_delta_metadata metadata;
    vexi_delta_add *adds;
    size_t add_count;
    vexi_delta_remove *removes;
    size_t remove_count;
    vexi_delta_txn *txns;
    size_t txn_count;
    vex_string operation;  /* commitInfo: "WRITE", ... */
    vex_string attempt_id; /* commitInfo.vexlakeAttempt: unique to the bytes of one attempt; null
                              in foreign commits */
    int64_t timestamp_ms;  /* commitInfo */
} vexi_delta_commit;

/* Parse one commit file. VEX_CORRUPT for bytes that are no commit, VEX_UNSUPPORTED for features
 * that a reader must know and we do not (column mapping, partition columns, v2 checkpoints are fine
 * to ignore where the protocol allows), naming them. */
vex_status vexi_delta_parse(vexi_span file, vexi_arena *arena, vexi_delta_commit *out,
                            vex_error *err);

/* Write a commit (all that is set) as JSON lines: commitInfo first, then protocol, metaData, txn,
 * remove, add. metaData gets schemaString (all columns nullable, `metadata` object on every field)
 * and the configuration given; the caller puts vexlake.* and delta.* keys there with
 * vexi_delta_configure. Adds carry stats {"numRecords", "tightBounds": false with a dv}. */
vex_status vexi_delta_write(const vexi_delta_commit *commit, vexi_buffer *out, vex_error *err);

/* Value of a configuration key; null if it is not there. */
vex_string vexi_delta_configured(const vexi_delta_metadata *metadata, const char *key);

/* Configuration of a collection that we make: vexlake.dimension, .metric, .index, .formatVersion,
 * .rotationSeed, .recall and .bits where the schema says, and delta.enableDeletionVectors where dv.
 * In the arena. */
vex_status vexi_delta_configure(const vexi_schema *schema, bool dv, bool dropped, vexi_arena *arena,
                                const vexi_delta_pair **out, size_t *out_count, vex_error *err);

/* A file that the newest version names. */
typedef struct vexi_delta_file {
    vexi_delta_add add;
    int64_t added_version; /* version of the first add of this path that was not removed since */
    uint64_t path_hash;    /* vexi_hash64 of add.path */
} vexi_delta_file;

/* The table as of a version. Owns its memory. */
typedef struct vexi_delta_state {
    const vexi_env *env;
    vexi_arena arena; /* strings; grows with the log, rebuilt by the caller when it pleases */
    int64_t version;  /* -1: empty */
    vexi_delta_protocol protocol;
    vexi_delta_metadata metadata;
    bool dropped;           /* configuration vexlake.dropped = true */
    vexi_delta_file *files; /* in order of added_version, then of appearance */
    size_t file_count;
    size_t file_capacity;
    vexi_delta_txn *txns;
    size_t txn_count;
    size_t txn_capacity;
} vexi_delta_state;

void vexi_delta_state_init(vexi_delta_state *state, const vexi_env *env);
void vexi_delta_state_deinit(vexi_delta_state *state);
/* Apply the commit of version state->version + 1; strings are copied. On failure the state is
 * unchanged. A remove of a file that is not there is ignored; its key is (path, dv). A metaData
 * with another id than before (VDROP, then VCREATE) forgets the txns. */
vex_status vexi_delta_state_apply(vexi_delta_state *state, const vexi_delta_commit *commit,
                                  vex_error *err);
/* VEX_UNSUPPORTED where the table asks writers for what we do not do (append only, change data
 * feed, constraints, generated columns, unknown features), naming it. Ask before every commit. */
vex_status vexi_delta_state_writable(const vexi_delta_state *state, vex_error *err);
/* txn version of an application, -1 if there is none. */
int64_t vexi_delta_state_txn(const vexi_delta_state *state, vex_string app_id);

/* ---- Folder names ---------------------------------------------------------------------------- */

/* A collection's folder: every byte outside [a-z0-9_-] as ~hh (lower-case hex). out: 3 x size + 1.
 */
vex_status vexi_folder_name(vex_string name, vexi_arena *arena, const char **out, vex_error *err);
/* And back; VEX_INVALID if no collection has such a folder. */
vex_status vexi_folder_parse(const char *folder, vexi_arena *arena, vex_string *out,
                             vex_error *err);
/* 1..VEX_NAME_SIZE_MAX bytes of UTF-8 without control characters. */
vex_status vexi_name_check(vex_string name, vex_error *err);

#endif
