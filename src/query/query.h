/* Query: searching and fetching on one view of a table, with results as Arrow record batches.
 *
 * Everything here works on an immutable view and is thread-safe. Results hold what they share by
 * themselves (query/batch.h). Blocks on storage, except vexi_get_from_memory. */
#ifndef VEXI_QUERY_QUERY_H
#define VEXI_QUERY_QUERY_H

#include "query/batch.h"

/* ---- Columns asked for ----------------------------------------------------------------------- */

/* Columns of a result beside id and distance: numbers of format/row.h, VEXI_COLUMN_VECTOR
 * included, in the order asked; a column may be there twice. */
enum { VEXI_ASKED_MAX = VEX_COLUMNS_MAX + 4 };
typedef struct vexi_asked {
    uint32_t count;
    uint32_t columns[VEXI_ASKED_MAX];
} vexi_asked;

/* From names; `all` asks for every column and ignores them. VEX_NOT_FOUND names the column. */
vex_status vexi_asked_resolve(const vexi_schema *schema, const vex_string *names, uint32_t count,
                              bool all, vexi_asked *out, vex_error *err);

/* Fill the columns of a batch: vectors for VEXI_COLUMN_VECTOR, cells[i * row_count ..] for the
 * i-th asked column otherwise. */
void vexi_asked_describe(const vexi_schema *schema, const vexi_asked *asked,
                         const uint8_t *const *vectors, const vexi_cell *cells, size_t row_count,
                         vexi_batch_column *out);

/* ---- Fetching -------------------------------------------------------------------------------- */

/* Where a row is; source VEXI_PLACE_NONE: there is none. */
enum { VEXI_PLACE_NONE = 0x7fffffff };
typedef struct vexi_place {
    uint32_t source;
    uint64_t row;
} vexi_place;

/* Asked columns of some rows. Vectors and strings point into the view's memory or the arenas. */
typedef struct vexi_fetched {
    const vexi_env *env;
    const uint8_t **vectors; /* count; NULL if not asked for */
    vexi_cell *cells;        /* asked->count x count; NULL if none but the vector is asked for */
    vexi_arena *arenas;      /* given away by moving: then NULL */
    size_t arena_count;
} vexi_fetched;

/* What a search fetched of each source already (query/search_internal.h). */
typedef struct vexi_ready vexi_ready;

/* Rows of several sources are fetched in parallel; what `ready` (by source; may be NULL) holds is
 * not. stats and cost may be NULL; the steps of sources count once. On failure *failed_source is
 * the source at fault (VEXI_PLACE_NONE if it is none's). Deinit on success. */
vex_status vexi_fetch(const vexi_env *env, const vexi_view *view, const vexi_place *places,
                      size_t count, const vexi_asked *asked, const vexi_ready *ready,
                      vexi_fetched *out, vex_search_stats *stats, vexi_read_cost *cost,
                      uint32_t *failed_source, vex_error *err);
void vexi_fetched_deinit(vexi_fetched *fetched);

/* Addresses of the vectors of `rows` (in any order) of one source, checked against their checksums
 * (once per mapping); out: count pointers, valid as long as the view and the arena. cost may be
 * NULL. */
vex_status vexi_source_vectors(const vexi_source *source, const uint64_t *rows, size_t count,
                               vexi_arena *arena, const uint8_t **out, vexi_read_cost *cost,
                               vex_error *err);

/* ---- Searching ------------------------------------------------------------------------------- */

typedef struct vexi_search_request {
    const float *queries; /* query_count x dimension, checked; or NULL with query_ids */
    const vex_string *query_ids;
    uint32_t query_count;
    uint32_t k;
    uint32_t nprobe; /* 0: by recall */
    uint32_t ef;     /* 0: by recall */
    float recall;    /* 0: the collection's */
    bool exact;
    bool partial;
    vexi_asked asked;
    vexi_table *table; /* to tell of damaged index files; NULL: damage ends the search */
} vexi_search_request;

/* See vex_search. schema and stats may be NULL. The view is of request->table; where an index file
 * proves damaged, the search runs again on a newer one. */
vex_status vexi_search(vexi_keeper *keeper, vexi_view *view, const vexi_search_request *request,
                       struct ArrowSchema *schema, struct ArrowArray *batch,
                       vex_search_stats *stats, vex_error *err);

/* ---- Getting --------------------------------------------------------------------------------- */

/* See vex_get: rows by id from a view. schema may be NULL. */
vex_status vexi_get(vexi_keeper *keeper, vexi_view *view, const vex_string *ids, size_t id_count,
                    const vexi_asked *asked, struct ArrowSchema *schema, struct ArrowArray *batch,
                    vex_error *err);

/* The same from memtables alone. *known is false, and nothing is returned, if only storage could
 * answer for one of the ids. */
vex_status vexi_get_from_memory(vexi_keeper *keeper, const vexi_memory_view *view,
                                const vex_string *ids, size_t id_count, const vexi_asked *asked,
                                struct ArrowSchema *schema, struct ArrowArray *batch, bool *known,
                                vex_error *err);

/* See vex_sample. schema may be NULL. */
vex_status vexi_sample(vexi_keeper *keeper, vexi_view *view, size_t count, uint64_t seed,
                       const vexi_asked *asked, struct ArrowSchema *schema,
                       struct ArrowArray *batch, vex_error *err);

#endif
