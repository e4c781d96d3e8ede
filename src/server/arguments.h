/* Arguments of the vector commands: options and vectors.
 *
 * Pure functions over the argument list (without the command's name); what they give out points
 * into it. `IN collection` stands last: if the last argument but one equals IN in any case it is
 * the option, whatever else could stand there. */
#ifndef VEXI_SERVER_ARGUMENTS_H
#define VEXI_SERVER_ARGUMENTS_H

#include "base/arena.h"

/* Whether `text` equals `word`, which is in upper case, in any case. */
bool vexi_word_is(vex_string text, const char *word);

/* Take `IN collection` off the end: *collection is its name (`default` without the option) and
 * *count what is left. VEX_INVALID: the name is empty or longer than VEX_NAME_SIZE_MAX. */
vex_status vexi_take_collection(const vex_string *arguments, uint32_t *count,
                                vex_string *collection, vex_error *err);

/* The same where only the name is wanted. */
vex_status vexi_collection_of(const vex_string *arguments, uint32_t count, vex_string *collection,
                              vex_error *err);

/* VGET id... [RETURN n column...] [RAW] [IN c]; the first argument is always an id. */
typedef struct vexi_get_arguments {
    vex_string collection;
    const vex_string *ids;
    uint32_t id_count;
    const vex_string *columns; /* NULL without RETURN */
    uint32_t column_count;
    bool raw;
} vexi_get_arguments;

vex_status vexi_parse_get(const vex_string *arguments, uint32_t count, vexi_get_arguments *out,
                          vex_error *err);

/* VSET id vector [ATTRIBUTES json] [PAYLOAD blob] [IN c] */
typedef struct vexi_set_arguments {
    vex_string collection;
    vex_string id;
    vex_string vector;
    vex_string attributes;
    vex_string payload;
} vexi_set_arguments;

vex_status vexi_parse_set(const vex_string *arguments, uint32_t count, vexi_set_arguments *out,
                          vex_error *err);

/* VSEARCH vector|ID id k [RECALL r] [NPROBE n] [EF n] [EXACT] [PARTIAL] [RETURN n column...]
 * [WITHVECTORS] [RAW] [PROFILE] [IN c]
 * Behind k there are only options, so IN may stand anywhere among them, not only last. */
typedef struct vexi_search_arguments {
    vex_string collection;
    vex_string query; /* the vector, or the id where by_id */
    const vex_string *columns;
    uint32_t column_count;
    uint32_t k;
    uint32_t nprobe; /* 0: not given */
    uint32_t ef;     /* 0: not given */
    float recall;    /* 0: not given */
    bool by_id;
    bool exact;
    bool partial;
    bool consistent;
    bool with_vectors;
    bool raw;
    bool profile;
} vexi_search_arguments;

vex_status vexi_parse_search(const vex_string *arguments, uint32_t count,
                             vexi_search_arguments *out, vex_error *err);

/* Whether two commands differ in nothing but what they ask for (ids, query), so that one call of
 * the engine can answer both. */
bool vexi_get_same(const vexi_get_arguments *a, const vexi_get_arguments *b);
/* One with PROFILE is like no other: what it tells is of its own. */
bool vexi_search_same(const vexi_search_arguments *a, const vexi_search_arguments *b);

/* VCREATE name DIM d [METRIC m] [INDEX i] [RECALL r] [BITS b] [COLUMNS name type ...] */
typedef struct vexi_create_arguments {
    vex_string name;
    vex_collection_options options;
    vex_column columns[VEX_COLUMNS_MAX]; /* options.columns points here */
} vexi_create_arguments;

vex_status vexi_parse_create(const vex_string *arguments, uint32_t count,
                             vexi_create_arguments *out, vex_error *err);

/* Read a vector argument: text if it begins with [, ends with ] and holds only digits, + - . e E,
 * commas and white space between them; else a blob of little-endian float32. Values go to `arena`
 * (a blob that is aligned already is borrowed). Values are not checked to be finite, nor against a
 * dimension, except that text beyond float32's range is refused.
 *
 * VEX_INVALID  neither text nor a blob of a multiple of 4 bytes, or empty; the message says where.
 */
vex_status vexi_parse_vector(vex_string text, vexi_arena *arena, const float **values,
                             uint32_t *dimension, vex_error *err);
/* Whether vexi_parse_vector takes it for text. */
bool vexi_vector_is_text(vex_string text);

#endif
