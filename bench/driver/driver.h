/* What the parts of vexlake_bench share. They use vexlake.h alone, like any embedder; results are
 * JSON objects, one a line, on stdout. Wall time is CLOCK_MONOTONIC; CPU time is the whole
 * process', kernel included. Any failure ends the program with a message: a benchmark has nobody to
 * ask. */
#ifndef DRIVER_H
#define DRIVER_H

#include <stddef.h>
#include <stdint.h>

#include "vexlake.h"

enum { COLUMNS_MAX = 16, CONNECTIONS_MAX = 64, LINE_SIZE = 4096 };

uint64_t wall_ns(void);
uint64_t cpu_ns(void);

_Noreturn void fail(const char *what, const char *why);

/* Decimal text, else fail(). */
size_t number(const char *text);
float fraction(const char *text);

/* Memory at a multiple of 64; never NULL. */
void *take(size_t size);

vex_string string_of(const char *text);

/* A file mapped whole; *size receives its size. */
const uint8_t *map_file(const char *path, size_t *size);

/* Anonymous resident memory of this process. */
uint64_t anonymous_bytes(void);

/* The beginning of an object: {"cpu_ns": ..., "wall_ns": [...]; the caller closes it. */
void print_times(const uint64_t *times, size_t count, uint64_t cpu);

/* Fields of vex_collection_describe, each led by a comma. */
void print_info(vex_lake *lake, vex_string collection);

vex_index_kind index_named(const char *name);
vex_metric metric_named(const char *name);

/* Wait until no segment lacks an index or, with INDEX hnsw, a graph. */
void wait_for_index(vex_lake *lake, vex_string collection);

/* A socket that does not block. */
int dial(const char *host, const char *port);

/* The commands; words are the arguments after the command's name. */
int serve(char **words);
int import_file(size_t count, char **words);
int flush_rows(char **words);
int vset(size_t count, char **words);
int query(size_t count, char **words);
int sync_cost(char **words);

#endif
