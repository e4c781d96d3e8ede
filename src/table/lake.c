/* Lakes: opening, the list of collections, creating and dropping them. */
#include "table/table_internal.h"

#include <stdio.h>

#include "base/checksum.h"

enum { DISCOVER_INTERVAL_MS = 10000 };

/* ---- The list of tables -----------------------------------------------------------------------
 */

static int name_compare(vex_string a, const char *b) {
    size_t b_size = strlen(b);
    size_t shorter = a.size < b_size ? a.size : b_size;
    int order = memcmp(a.data, b, shorter);
    return order != 0 ? order : (a.size > b_size) - (a.size < b_size);
}

/* Position of the name, or where it would go. */
static size_t table_position(const vexi_lake *lake, vex_string name, bool *found) {
    size_t low = 0;
    size_t high = lake->table_count;
    *found = false;
    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = name_compare(name, lake->tables[middle]->name);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

/* tables_lock held. */
static vexi_table *find_table(vexi_lake *lake, vex_string name) {
    bool found;
    size_t position = table_position(lake, name, &found);
    return found ? lake->tables[position] : NULL;
}

/* Add, or replace one of the same name. Takes the reference. tables_lock held for writing; *old
 * receives the replaced table. */
static vex_status tables_insert(vexi_lake *lake, vexi_table *table, vexi_table **old,
                                vex_error *err) {
    *old = NULL;
    bool found;
    size_t position = table_position(lake, vexi_string_of(table->name), &found);
    if (found) {
        *old = lake->tables[position];
        lake->tables[position] = table;
        return VEX_OK;
    }
    void *tables = lake->tables;
    VEX_TRY(vexi_grow(lake->core->env, &tables, &lake->table_capacity, lake->table_count,
                      lake->table_count + 1, sizeof *lake->tables, err));
    lake->tables = tables;
    memmove(lake->tables + position + 1, lake->tables + position,
            (lake->table_count - position) * sizeof *lake->tables);
    lake->tables[position] = table;
    lake->table_count++;
    return VEX_OK;
}

vex_status lake_add_table(vexi_lake *lake, vexi_table *table, vex_error *err) {
    vexi_table *old;
    pthread_rwlock_wrlock(&lake->tables_lock);
    vex_status status = tables_insert(lake, table, &old, err);
    pthread_rwlock_unlock(&lake->tables_lock);
    if (old != NULL) {
        vexi_cancel(lake->core->env, &old->flush_task);
        vexi_table_release(old);
    }
    return status;
}

static bool table_is_dropped(vexi_table *table) {
    pthread_mutex_lock(&table->state_lock);
    bool dropped = table->dropped;
    pthread_mutex_unlock(&table->state_lock);
    return dropped;
}

/* A reference, or NULL. */
static vexi_table *table_get(vexi_lake *lake, vex_string name) {
    pthread_rwlock_rdlock(&lake->tables_lock);
    vexi_table *table = find_table(lake, name);
    if (table != NULL) {
        table_retain(table);
    }
    pthread_rwlock_unlock(&lake->tables_lock);
    if (table != NULL && table_is_dropped(table)) {
        vexi_table_release(table);
        table = NULL;
    }
    return table;
}

/* Whether this name was looked for a moment ago; notes that it is now. */
static bool missed_lately(vexi_lake *lake, vex_string name) {
    uint64_t hash = vexi_hash64(name.data, name.size);
    uint64_t now_ns = vexi_monotonic_ns(lake->core->env);
    uint64_t interval_ns = (uint64_t)lake->config.refresh_interval_ms * 1000000u;
    bool lately = false;
    pthread_rwlock_wrlock(&lake->tables_lock);
    for (size_t i = 0; i < LAKE_MISSES; i++) {
        const lake_miss *miss = &lake->misses[i];
        lately = lately || (miss->hash == hash && miss->since_ns != 0 &&
                            now_ns - miss->since_ns < interval_ns);
    }
    if (!lately) {
        lake->misses[lake->miss_next++ % LAKE_MISSES] =
            (lake_miss){.hash = hash, .since_ns = now_ns};
    }
    pthread_rwlock_unlock(&lake->tables_lock);
    return lately;
}

/* Another node of a shared lake may have made the collection. create_lock keeps two from opening
 * it. */
static vex_status discover(vexi_lake *lake, vex_string name, vex_error *err) {
    if (!lake->config.shared || vexi_name_check(name, NULL) != VEX_OK) {
        return VEX_OK;
    }
    vexi_arena arena;
    vexi_arena_init(&arena, lake->core->env);
    const char *folder;
    bool skipped = false;
    vex_status status = vexi_folder_name(name, &arena, &folder, err);
    if (status == VEX_OK) {
        pthread_mutex_lock(&lake->create_lock);
        vexi_table *table = table_get(lake, name);
        /* With the lock: somebody may be finding it just now. */
        if (table == NULL && !missed_lately(lake, name)) {
            status = lake_load_table(lake, folder, &arena, &skipped, err);
        }
        vexi_table_release(table);
        pthread_mutex_unlock(&lake->create_lock);
    }
    vexi_arena_deinit(&arena);
    return status;
}

/* The same for all folders, so that lists are whole. */
static void discover_all(vexi_lake *lake) {
    uint64_t now_ns = vexi_monotonic_ns(lake->core->env);
    if (!lake->config.shared ||
        now_ns - lake->discovered_ns < DISCOVER_INTERVAL_MS * UINT64_C(1000000)) {
        return;
    }
    lake->discovered_ns = now_ns;
    vexi_arena arena;
    vexi_arena_init(&arena, lake->core->env);
    vexi_listing listing = {.count = 0};
    vex_error error;
    vex_status status =
        vexi_store_list(lake->core->store, "", NULL, true, &arena, &listing, &error);
    for (size_t i = 0; i < listing.count && status == VEX_OK; i++) {
        const vexi_list_entry *entry = &listing.entries[i];
        size_t size = strlen(entry->name);
        char *folder = size < 2 || !entry->is_folder || entry->name[0] == '.'
                           ? NULL
                           : vexi_arena_copy(&arena, entry->name, size - 1);
        vex_string name;
        if (folder == NULL || vexi_folder_parse(folder, &arena, &name, NULL) != VEX_OK) {
            continue;
        }
        vexi_table *table = table_get(lake, name);
        if (table == NULL) {
            status = discover(lake, name, &error);
        }
        vexi_table_release(table);
    }
    vexi_arena_deinit(&arena);
    if (status != VEX_OK) {
        vexi_log(lake->core->env, 2, "looking for new collections: %s", error.message);
    }
}

vex_status vexi_lake_table(vexi_lake *lake, vex_string name, vexi_table **out, vex_error *err) {
    *out = NULL;
    vexi_table *table = table_get(lake, name);
    if (table == NULL && lake->config.shared) {
        VEX_TRY(discover(lake, name, err));
        table = table_get(lake, name);
    }
    if (table == NULL) {
        return vexi_fail(err, VEX_NOT_FOUND, "no collection '%.*s'",
                         (int)(name.size > 200 ? 200 : name.size), name.data);
    }
    *out = table;
    return VEX_OK;
}

bool vexi_lake_knows(vexi_lake *lake, vex_string name) {
    vexi_table *table = lake->config.shared ? table_get(lake, name) : NULL;
    vexi_table_release(table);
    return !lake->config.shared || table != NULL;
}

vex_status vexi_lake_list_tables(vexi_lake *lake, vexi_arena *arena, vex_string **names,
                                 size_t *count, vex_error *err) {
    vex_status status = VEX_OK;
    *count = 0;
    pthread_rwlock_rdlock(&lake->tables_lock);
    *names = vexi_arena_array(arena, lake->table_count, sizeof **names);
    if (*names == NULL) {
        status = vexi_no_memory(err, lake->table_count * sizeof **names);
    }
    for (size_t i = 0; i < lake->table_count && status == VEX_OK; i++) {
        vexi_table *table = lake->tables[i];
        if (table_is_dropped(table)) {
            continue;
        }
        size_t size = strlen(table->name);
        (*names)[*count] = (vex_string){vexi_arena_copy(arena, table->name, size), size};
        if ((*names)[*count].data == NULL) {
            status = vexi_no_memory(err, size);
        }
        *count += 1;
    }
    pthread_rwlock_unlock(&lake->tables_lock);
    return status;
}

/* ---- Creating and dropping --------------------------------------------------------------------
 */

static vex_status writable(const vexi_lake *lake, vex_error *err) {
    return lake->config.read_only ? vexi_fail(err, VEX_READ_ONLY, "the lake is opened read-only")
                                  : VEX_OK;
}

static vex_status schema_check(const vexi_schema *schema, vex_error *err) {
    if (schema->dimension < 1 || schema->dimension > VEX_DIMENSION_MAX) {
        return vexi_fail(err, VEX_INVALID, "dimension %u is not in 1..%u", schema->dimension,
                         VEX_DIMENSION_MAX);
    }
    if (schema->metric > VEX_METRIC_IP) {
        return vexi_fail(err, VEX_INVALID, "metric is %d, not one of vex_metric",
                         (int)schema->metric);
    }
    if (schema->index > VEX_INDEX_HNSW) {
        return vexi_fail(err, VEX_INVALID, "index is %d, not one of vex_index_kind",
                         (int)schema->index);
    }
    if (!(schema->recall >= 0 && schema->recall <= 1)) {
        return vexi_fail(err, VEX_INVALID, "recall is %g, not above 0 and at most 1",
                         (double)schema->recall);
    }
    if (schema->bits != 0 && !vexi_schema_bits_valid(schema->bits)) {
        return vexi_fail(err, VEX_INVALID, "bits is %u, not 1, 4 or 8", schema->bits);
    }
    if (schema->column_count > VEX_COLUMNS_MAX) {
        return vexi_fail(err, VEX_INVALID, "%u columns; at most %u are possible",
                         schema->column_count, VEX_COLUMNS_MAX);
    }
    static const char *const reserved[] = {"id", "vector", "attributes", "payload"};
    for (uint32_t i = 0; i < schema->column_count; i++) {
        vex_string name = schema->columns[i].name;
        vex_status status = vexi_name_check(name, err);
        if (status != VEX_OK) {
            return vexi_prefix(err, status, "column %u", i + 1);
        }
        if (schema->columns[i].type < VEX_TYPE_INT64 ||
            schema->columns[i].type > VEX_TYPE_TIMESTAMP) {
            return vexi_fail(err, VEX_INVALID, "column '%.*s' has an unknown type", (int)name.size,
                             name.data);
        }
        for (size_t r = 0; r < sizeof reserved / sizeof *reserved; r++) {
            if (vexi_string_is(name, reserved[r])) {
                return vexi_fail(err, VEX_INVALID, "a typed column cannot be named '%s'",
                                 reserved[r]);
            }
        }
        for (uint32_t j = 0; j < i; j++) {
            if (vexi_string_equal(name, schema->columns[j].name)) {
                return vexi_fail(err, VEX_INVALID, "two columns named '%.*s'", (int)name.size,
                                 name.data);
            }
        }
    }
    return VEX_OK;
}

/* Put the commit that makes the table; `delta` is at the newest version of its log. */
static vex_status create_commit(vexi_lake *lake, vex_string name, const char *folder,
                                const vexi_schema *schema, vexi_delta_state *delta,
                                vex_error *err) {
    const vexi_env *env = lake->core->env;
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    char uuid[37];
    vexi_random_uuid(env, uuid);
    bool dv = delta->protocol.deletion_vectors;
    vexi_delta_commit commit = {
        .operation = vexi_string_of("CREATE TABLE"),
        .metadata = {.id = vexi_string_of(uuid),
                     .name = name,
                     .created_time_ms = vexi_wall_us(env) / 1000,
                     .schema = *schema},
    };
    commit.metadata.schema.rotation_seed = vexi_random_u64(env) >> 1;
    if (delta->version < 0) {
        commit.protocol = (vexi_delta_protocol){.reader_version = 1, .writer_version = 2};
    }
    vex_status status = vexi_delta_configure(&commit.metadata.schema, dv, false, &arena,
                                             &commit.metadata.configuration,
                                             &commit.metadata.configuration_count, err);
    if (status == VEX_OK) {
        status = commit_put(lake->core, folder, delta, &commit, err);
    }
    vexi_arena_deinit(&arena);
    return status;
}

static vex_status already_exists(vex_string name, vex_error *err) {
    return vexi_fail(err, VEX_EXISTS, "collection '%.*s' already exists", (int)name.size,
                     name.data);
}

/* Open the table of a Delta state (moved from) and add it to the list. */
static vex_status table_adopt(vexi_lake *lake, vex_string name, const char *folder,
                              vexi_delta_state *delta, vex_error *err) {
    vexi_table *table;
    VEX_TRY(table_create(lake, name, folder, delta, &table, err));
    vex_status status = lake_add_table(lake, table, err);
    if (status != VEX_OK) {
        vexi_table_release(table);
    }
    return status;
}

/* create_lock is held: who meets a log that the list does not know finds what an earlier attempt
 * left when it failed behind its commit, not one that is about to be listed. */
static vex_status create_table(vexi_lake *lake, vex_string name, const char *folder,
                               const vexi_schema *schema, vexi_delta_state *delta, vex_error *err) {
    vexi_table *table = table_get(lake, name);
    if (table != NULL) {
        vexi_table_release(table);
        return already_exists(name, err);
    }
    /* A dropped table's log is continued. VEX_CORRUPT means that there is none yet; a real damage
     * of version 0 shows as the version being taken. */
    vex_error refresh_error;
    vex_status status = commit_refresh(lake->core, folder, delta, &refresh_error);
    if (status != VEX_OK && (status != VEX_CORRUPT || delta->version >= 0)) {
        if (err != NULL) {
            *err = refresh_error;
        }
        return status;
    }
    if (delta->version >= 0 && !delta->dropped) {
        VEX_TRY(commit_settle(lake->core, folder, delta->version, err));
        VEX_TRY(table_adopt(lake, name, folder, delta, err));
        return already_exists(name, err);
    }
    status = create_commit(lake, name, folder, schema, delta, err);
    if (status == VEX_EXISTS) {
        return already_exists(name, err);
    }
    VEX_TRY(status);
    return table_adopt(lake, name, folder, delta, err);
}

vex_status vexi_lake_create_table(vexi_lake *lake, vex_string name, const vexi_schema *schema,
                                  vex_error *err) {
    VEX_TRY(writable(lake, err));
    VEX_TRY(vexi_name_check(name, err));
    VEX_TRY(schema_check(schema, err));
    vexi_arena arena;
    vexi_arena_init(&arena, lake->core->env);
    vexi_delta_state delta;
    vexi_delta_state_init(&delta, lake->core->env);
    const char *folder;
    vex_status status = vexi_folder_name(name, &arena, &folder, err);
    if (status == VEX_OK) {
        pthread_mutex_lock(&lake->create_lock);
        status = create_table(lake, name, folder, schema, &delta, err);
        pthread_mutex_unlock(&lake->create_lock);
    }
    vexi_delta_state_deinit(&delta);
    vexi_arena_deinit(&arena);
    return status;
}

bool table_is_gone(const vexi_table *table) {
    return table->delta.dropped || !vexi_string_is(table->delta.metadata.id, table->uuid);
}

/* One attempt to commit the drop against the newest version. Commit lock. */
static vex_status drop_attempt(vexi_table *table, vex_error *err) {
    vexi_delta_state *delta = &table->delta;
    VEX_TRY(commit_refresh(table->core, table->folder, delta, err));
    if (table_is_gone(table)) {
        return vexi_fail(err, VEX_NOT_FOUND, "no collection '%s'", table->name);
    }
    VEX_TRY(table_check_epoch(table, err));
    const vexi_env *env = table->core->env;
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    vexi_delta_commit commit = {.operation = vexi_string_of("DROP TABLE"),
                                .metadata = delta->metadata};
    vex_status status = VEX_OK;
    commit.removes = vexi_arena_calloc(&arena, delta->file_count + 1, sizeof *commit.removes);
    if (commit.removes == NULL) {
        status = vexi_no_memory(err, delta->file_count * sizeof *commit.removes);
    }
    int64_t now_ms = vexi_wall_us(env) / 1000;
    for (size_t i = 0; i < delta->file_count && status == VEX_OK; i++) {
        commit.removes[commit.remove_count++] = commit_remove(&delta->files[i].add, now_ms);
    }
    if (status == VEX_OK) {
        status = vexi_delta_configure(&table->schema->schema, delta->protocol.deletion_vectors,
                                      true, &arena, &commit.metadata.configuration,
                                      &commit.metadata.configuration_count, err);
    }
    if (status == VEX_OK) {
        status = commit_put(table->core, table->folder, delta, &commit, err);
    }
    vexi_arena_deinit(&arena);
    return status;
}

vex_status table_let_go(vexi_table *table, vex_error *err) {
    vexi_lake *lake = table->lake;
    if (table_is_dropped(table)) {
        return VEX_OK;
    }
    if (!lake->config.read_only) {
        /* Log files go on its word. */
        VEX_TRY(commit_settle(table->core, table->folder, table->delta.version, err));
    }
    pthread_mutex_lock(&table->state_lock);
    table->dropped = true;
    __atomic_store_n(&table->index_cancel, 1, __ATOMIC_RELAXED);
    table->changes++;
    /* Its memtables are no longer anybody's; writes in the log queue see `dropped`. If sealing
     * fails, the active one stays until the table is replaced or the lake is closed. */
    (void)table_seal(table, NULL);
    size_t sealed_count = table->sealed_count;
    pthread_mutex_unlock(&table->state_lock);
    table_drop_views(table);
    table_graphs_remove(table, table->segments, table->segment_count);
    /* Nothing is left to resolve, so this cannot fail. */
    VEX_TRY(table_publish(table, NULL, 0, sealed_count, false, table->delta.version, err));
    table_log_committed(table, UINT64_MAX);
    return VEX_OK;
}

vex_status vexi_lake_drop_table(vexi_lake *lake, vex_string name, vex_error *err) {
    VEX_TRY(writable(lake, err));
    vexi_table *table;
    VEX_TRY(vexi_lake_table(lake, name, &table, err));
    pthread_mutex_lock(&table->commit_lock);
    vex_status status = table->log == NULL ? VEX_OK : table_claim_locked(table, err);
    status = status == VEX_OK ? VEX_EXISTS : status;
    while (status == VEX_EXISTS) {
        status = drop_attempt(table, err);
    }
    if (table_is_gone(table)) {
        /* Also where it was another's drop, or an earlier one of ours whose outcome was unknown. */
        vex_status gone = table_let_go(table, err);
        status = gone == VEX_OK ? status : gone;
    }
    if (status != VEX_OK && table_owned(table)) {
        pthread_mutex_lock(&table->state_lock);
        table->doubtful = true;
        pthread_mutex_unlock(&table->state_lock);
    }
    pthread_mutex_unlock(&table->commit_lock);
    vexi_table_release(table);
    return status;
}

vex_status lake_drop_if_empty(vexi_lake *lake, vexi_table *table, vex_error *err) {
    vex_status status = VEX_OK;
    pthread_mutex_lock(&lake->create_lock); /* nobody adopts it between the two steps */
    pthread_mutex_lock(&table->commit_lock);
    if (table->log != NULL) { /* what others wrote is known then */
        status = table_claim_locked(table, err);
    }
    pthread_mutex_lock(&table->state_lock);
    bool empty =
        status == VEX_OK && !table->dropped && table->segment_count == 0 &&
        table->sealed_count == 0 && table->reserved_rows == 0 &&
        (table->active.memtable == NULL || vexi_memtable_count(table->active.memtable) == 0);
    /* From here on no write is admitted, so none can be acknowledged and then dropped. */
    table->dropped = table->dropped || empty;
    pthread_mutex_unlock(&table->state_lock);
    if (empty) {
        status = VEX_EXISTS;
        while (status == VEX_EXISTS) {
            status = drop_attempt(table, err);
        }
        if (status != VEX_OK) {
            pthread_mutex_lock(&table->state_lock);
            table->dropped = table_is_gone(table);
            table->doubtful = true;
            pthread_mutex_unlock(&table->state_lock);
        }
    }
    pthread_mutex_unlock(&table->commit_lock);
    pthread_mutex_unlock(&lake->create_lock);
    return status;
}

/* ---- Flushing and refreshing all --------------------------------------------------------------
 */

/* Call for each table that is not dropped; the first failure is kept, the others go on. */
static vex_status tables_each(vexi_lake *lake, vex_status (*call)(vexi_table *, vex_error *),
                              vex_error *err) {
    vex_status status = VEX_OK;
    for (size_t i = 0;; i++) {
        /* The list may change between steps; a table that moves is met twice or by itself later. */
        pthread_rwlock_rdlock(&lake->tables_lock);
        vexi_table *table = i < lake->table_count ? lake->tables[i] : NULL;
        if (table != NULL) {
            table_retain(table);
        }
        pthread_rwlock_unlock(&lake->tables_lock);
        if (table == NULL) {
            return status;
        }
        vex_error error;
        vex_status one = table_is_dropped(table) ? VEX_OK : call(table, &error);
        if (one != VEX_OK && status == VEX_OK) {
            status = one;
            if (err != NULL) {
                *err = error;
            }
        }
        vexi_table_release(table);
    }
}

/* Of a shared lake only what this node writes: the others' rows they flush themselves. */
static vex_status flush_owned(vexi_table *table, vex_error *err) {
    return table_owned(table) ? vexi_table_flush(table, err) : VEX_OK;
}

vex_status vexi_lake_flush(vexi_lake *lake, vex_error *err) {
    VEX_TRY(writable(lake, err));
    return tables_each(lake, flush_owned, err);
}

bool lake_is_full(const vexi_lake *lake) {
    return __atomic_load_n(&lake->memory_bytes, __ATOMIC_RELAXED) >=
           lake->config.memory_limit_bytes;
}

static vex_status make_room(vexi_table *table, vex_error *err) {
    return lake_is_full(table->lake) ? flush_owned(table, err) : VEX_OK;
}

vex_status lake_make_room(vexi_lake *lake, vex_error *err) {
    return tables_each(lake, make_room, err);
}

void lake_log_lost(void *argument) {
    vexi_lake *lake = argument;
    pthread_rwlock_rdlock(&lake->tables_lock);
    for (size_t i = 0; i < lake->table_count; i++) {
        pthread_mutex_lock(&lake->tables[i]->state_lock);
        lake->tables[i]->flush_now = true;
        pthread_mutex_unlock(&lake->tables[i]->state_lock);
        vexi_submit(lake->core->env, &lake->tables[i]->flush_task, 0);
    }
    pthread_rwlock_unlock(&lake->tables_lock);
}

static vex_status refresh_table(vexi_table *table, vex_error *err) {
    (void)err;
    vex_error error;
    if (!table_is_followed(table)) {
        return VEX_OK; /* who asks it next looks first */
    }
    if (pthread_mutex_trylock(&table->commit_lock) != 0) {
        return VEX_OK; /* a committer is at work: it reads the log itself */
    }
    vex_status status = table_refresh(table, &error);
    pthread_mutex_unlock(&table->commit_lock);
    if (status != VEX_OK) {
        table_note_error(table, &error);
    }
    return VEX_OK;
}

static void refresh_run(void *argument) {
    vexi_lake *lake = argument;
    (void)tables_each(lake, refresh_table, NULL);
    discover_all(lake);
    if (!__atomic_load_n(&lake->closing, __ATOMIC_RELAXED)) {
        vexi_submit(lake->core->env, &lake->refresh_task, lake->config.refresh_interval_ms);
    }
}

/* ---- Opening and closing ----------------------------------------------------------------------
 */

vex_status vexi_lake_open(const vexi_env *env, vexi_store *store, const vexi_lake_config *config,
                          vexi_lake **out, vex_error *err) {
    *out = NULL;
    vexi_lake *lake = vexi_calloc(env, 1, sizeof *lake);
    vexi_core *core = vexi_calloc(env, 1, sizeof *core);
    if (lake == NULL || core == NULL) {
        vexi_free(env, lake);
        vexi_free(env, core);
        vexi_store_destroy(store);
        return vexi_no_memory(err, sizeof *lake);
    }
    *core = (vexi_core){.references = 1, .env = env, .store = store};
    lake->core = core;
    lake->config = *config;
    lake->refresh_task = (vexi_task){.run = refresh_run, .argument = lake};
    lake->prefetch_task = (vexi_task){.run = prefetch_run, .argument = lake};
    lake->index_task = (vexi_task){.run = index_run, .argument = lake};
    pthread_mutex_init(&lake->create_lock, NULL);
    pthread_rwlock_init(&lake->tables_lock, NULL);
    vex_status status = lake_recover(lake, err);
    if (status != VEX_OK) {
        (void)vexi_lake_close(lake, NULL);
        return status;
    }
    if (config->refresh_interval_ms > 0) {
        vexi_submit(env, &lake->refresh_task, config->refresh_interval_ms);
    }
    __atomic_store_n(&lake->ready, true, __ATOMIC_RELEASE);
    lake_index_soon(lake);
    if (config->prefetch && config->cache_memory_bytes > 0) {
        vexi_submit(env, &lake->prefetch_task, 0);
    }
    *out = lake;
    return VEX_OK;
}

vex_status vexi_lake_close(vexi_lake *lake, vex_error *err) {
    if (lake == NULL) {
        return VEX_OK;
    }
    const vexi_env *env = lake->core->env;
    __atomic_store_n(&lake->closing, true, __ATOMIC_RELAXED);
    vexi_cancel(env, &lake->refresh_task); /* first: it opens and lets go of tables */
    for (size_t i = 0; i < lake->table_count; i++) {
        __atomic_store_n(&lake->tables[i]->index_cancel, 1, __ATOMIC_RELAXED);
    }
    vexi_cancel(env, &lake->prefetch_task);
    vexi_cancel(env, &lake->index_task);
    vexi_wal_stop(lake->wal); /* what it calls when a sync fails queues flushes */
    for (size_t i = 0; i < lake->table_count; i++) {
        vexi_cancel(env, &lake->tables[i]->flush_task);
    }
    vexi_cancel(env, &lake->index_task); /* a flush that ended meanwhile may have asked for it */
    lake_node_destroy(lake->node);       /* no writes are under way: what it claimed is free */
    vex_status status = vexi_wal_destroy(lake->wal, err);
    for (size_t i = 0; i < lake->table_count; i++) {
        vexi_table_release(lake->tables[i]);
    }
    vexi_free(env, lake->tables);
    pthread_rwlock_destroy(&lake->tables_lock);
    pthread_mutex_destroy(&lake->create_lock);
    vexi_store_unlock(lake->core->store);
    vexi_core_release(lake->core);
    vexi_free(env, lake);
    return status;
}

/* ---- Watching -------------------------------------------------------------------------------- */

void vexi_lake_describe(vexi_lake *lake, vex_lake_stats *out) {
    out->memtable_size_bytes = __atomic_load_n(&lake->memory_bytes, __ATOMIC_RELAXED);
    out->memtable_limit_bytes = lake->config.memory_limit_bytes;
    out->graph_size_bytes = __atomic_load_n(&lake->core->graph_bytes, __ATOMIC_RELAXED);
    out->graph_limit_bytes = lake->config.graph_memory_bytes;
    if (lake->wal != NULL) {
        vexi_wal_describe(lake->wal, out);
    }
    pthread_rwlock_rdlock(&lake->tables_lock);
    for (size_t i = 0; i < lake->table_count; i++) {
        if (lake->tables[i]->log != NULL && table_owned(lake->tables[i])) {
            lake_log_describe(lake->tables[i]->log, out);
        }
    }
    pthread_rwlock_unlock(&lake->tables_lock);
}

vex_status vexi_lake_probe(vexi_lake *lake, vex_error *err) {
    uint64_t size;
    return vexi_store_size(lake->core->store, ".vexlake/format", &size, err);
}
