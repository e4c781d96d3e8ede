/* Segments without a usable index: opened all the same, then indexed anew.
 *
 *     index file damaged ──open plain──► searched exactly ──build, commit──► indexed
 *     file of another engine ─────────────────┘
 *
 * A Parquet file tells all about its rows by itself. Where the index file beside it is damaged or
 * lost, the segment is opened from the Parquet file alone and takes the old one's place: row
 * positions and so deletion bits stay. Only where the Parquet file is damaged too is anything lost.
 *
 * In the background the live rows of such a segment become indexed segments, in one commit that
 * removes the old file and adds the new ones and changes no data (dataChange false). Rows that were
 * deleted while they were built are deleted in the new segments, by id, in each attempt of that
 * commit; if the old file is gone by then, so is the work. Large files become several segments, so
 * that building takes the memory of one; the decoded rows are in memory already. */
#include "table/segment_internal.h"
#include "table/table_internal.h"

enum { PART_SIZE_DEFAULT = 64 << 20 };

/* ---- Opening without the index ----------------------------------------------------------------
 */

static const vexi_delta_add *add_of(const vexi_delta_state *delta, const vexi_segment *segment) {
    for (size_t i = 0; i < delta->file_count; i++) {
        if (vexi_string_is(delta->files[i].add.path, vexi_segment_path(segment))) {
            return &delta->files[i].add;
        }
    }
    return NULL;
}

static bool mendable(vex_status status) {
    return status == VEX_CORRUPT || status == VEX_IO || status == VEX_UNSUPPORTED ||
           status == VEX_NOT_FOUND;
}

static vex_status damage_back(const vex_error *damage, vex_error *err) {
    if (err != NULL) {
        *err = *damage;
    }
    return damage->status;
}

vex_status table_entry_open_plain(vexi_table *table, table_segment *entry, const vex_error *damage,
                                  vex_error *err) {
    vexi_segment *old = entry->segment;
    const vexi_delta_add *add = add_of(&table->delta, old);
    /* Without its deletion vector a segment would show deleted rows. */
    bool hides_unknown = entry->dv_hash != 0 && entry->deleted == NULL;
    if (hides_unknown) {
        __atomic_store_n(&old->plain_failed, 1, __ATOMIC_RELAXED);
    }
    if (!mendable(damage->status) || !vexi_segment_mendable(old) || add == NULL ||
        add->index.path.data == NULL) {
        return damage_back(damage, err);
    }
    vexi_segment *plain;
    VEX_TRY(vexi_segment_open_plain(table->core, table->schema, table->folder, add, &plain, err));
    vex_error problem;
    vex_status status = vexi_segment_check(plain, &problem);
    if (status == VEX_OK && old->row_count != 0 && plain->row_count != old->row_count) {
        status =
            vexi_fail(&problem, VEX_CORRUPT, "%s: %llu rows, %llu were indexed", plain->object_name,
                      (unsigned long long)plain->row_count, (unsigned long long)old->row_count);
    }
    if (status != VEX_OK) {
        vexi_segment_release(plain);
        if (status != VEX_IO) { /* which may pass */
            __atomic_store_n(&old->plain_failed, 1, __ATOMIC_RELAXED);
        }
        return damage_back(&problem, err);
    }
    vexi_segment_set_plain(plain, damage);
    entry->segment = plain;
    vexi_segment_release(old);
    return VEX_OK;
}

/* The published list with entry `at` opened plain. Commit lock. */
static vex_status mend_entry(vexi_table *table, size_t at, const vex_error *damage,
                             vex_error *err) {
    table_segment *list;
    size_t count = table->segment_count;
    VEX_TRY(table_segments_share(table, &list, err));
    for (size_t i = 0; i < count; i++) {
        list[i].dv_hash = table->segments[i].dv_hash;
        list[i].unstored = table->segments[i].unstored;
    }
    vex_status status = table_entry_open_plain(table, &list[at], damage, err);
    if (status != VEX_OK) {
        table_segments_free(table->core->env, list, count);
        return status;
    }
    return table_publish(table, list, count, 0, false, table->version, err);
}

vex_status table_mend(vexi_table *table, const vexi_segment *segment, const vex_error *damage,
                      vex_error *err) {
    vex_status status = VEX_OK;
    pthread_mutex_lock(&table->commit_lock);
    for (size_t i = 0; i < table->segment_count; i++) {
        if (table->segments[i].segment == segment) {
            status = mend_entry(table, i, damage, err);
            break;
        }
    }
    pthread_mutex_unlock(&table->commit_lock);
    return status;
}

vex_status table_mend_all(vexi_table *table, vex_error *err) {
    for (size_t i = 0; i < table->segment_count; i++) {
        vex_error damage;
        vexi_segment *segment = table->segments[i].segment;
        if (vexi_segment_check(segment, &damage) != VEX_OK && !vexi_segment_unread(segment)) {
            VEX_TRY(mend_entry(table, i, &damage, err)); /* entries keep their places */
        }
    }
    return VEX_OK;
}

vex_status vexi_view_index_damaged(vexi_table *table, const vexi_view *view, uint32_t source,
                                   vex_status met, vex_error *err) {
    vexi_segment *segment = view->sources[source].segment;
    vex_error damage = {.status = VEX_OK};
    if (segment == NULL) {
        return vexi_fail(err, VEX_INTERNAL, "a memtable cannot be damaged");
    }
    vex_status status = vexi_segment_check(segment, &damage);
    if (status == VEX_OK) {
        /* Which of its files? Where it is the graph, the lists still serve. */
        status = vexi_segment_graph_check(segment, &damage);
        if (status == VEX_CORRUPT || status == VEX_IO) {
            vexi_log(table->core->env, 3, "graph left out: %s", damage.message);
            vexi_segment_graph_retire(segment);
            if (table_owned(table)) {
                vexi_segment_graph_remove(segment);
            }
            lake_index_soon(table->lake);
            return VEX_OK;
        }
        if (met == VEX_IO && !vexi_segment_index_cut(segment)) {
            return vexi_fail(err, VEX_IO, "%s: its rows cannot be read",
                             vexi_segment_object_name(segment));
        }
        status = vexi_fail(&damage, VEX_CORRUPT, "%s: its index or its rows are damaged",
                           vexi_segment_object_name(segment));
    }
    return status == VEX_IO ? damage_back(&damage, err) : table_mend(table, segment, &damage, err);
}

bool vexi_view_mend(vexi_table *table, const vexi_view *view, vex_status met) {
    bool mended = false;
    if (met != VEX_CORRUPT && met != VEX_IO) {
        return false;
    }
    for (size_t i = 0; i < view->source_count; i++) {
        vexi_segment *segment = view->sources[i].segment;
        if (segment == NULL) {
            continue;
        }
        if (met == VEX_CORRUPT && vexi_segment_distrust(segment)) {
            mended = true;
        }
        if (!vexi_segment_mendable(segment)) {
            continue;
        }
        if (vexi_segment_index_damaged(segment) ||
            (met == VEX_IO && vexi_segment_index_cut(segment))) {
            mended =
                vexi_view_index_damaged(table, view, (uint32_t)i, met, NULL) == VEX_OK || mended;
        }
    }
    return mended;
}

/* ---- Indexing ---------------------------------------------------------------------------------
 */

static size_t row_size(const vexi_schema *schema, const vexi_row *row) {
    size_t size = sizeof *row + schema->dimension * sizeof(float) + row->id.size +
                  row->attributes.size + row->payload.size;
    for (uint32_t c = 0; row->cells != NULL && c < schema->column_count; c++) {
        size += sizeof *row->cells;
        if (schema->columns[c].type == VEX_TYPE_STRING && !row->cells[c].is_null) {
            size += row->cells[c].as.string.size;
        }
    }
    return size;
}

static vex_status check_leaving(const vexi_table *table, vex_error *err) {
    return __atomic_load_n(&table->index_cancel, __ATOMIC_RELAXED) != 0
               ? vexi_fail(err, VEX_CANCELLED, "closing")
               : VEX_OK;
}

/* Build segments of `rows`, each of about the size of an import's. */
static vex_status parts_build(vexi_table *table, const vexi_row **rows, size_t count,
                              commit_segment *parts, size_t part_max, size_t *part_count,
                              vexi_arena *arena, vex_error *err) {
    uint64_t limit = table->lake->config.segment_size_bytes;
    limit = limit != 0 ? limit : PART_SIZE_DEFAULT;
    for (size_t done = 0; done < count;) {
        uint64_t size = 0;
        size_t taken = 0;
        while (done + taken < count && (taken == 0 || size < limit)) {
            size += row_size(&table->schema->schema, rows[done + taken++]);
        }
        VEX_TRY(check_leaving(table, err));
        VEX_ASSERT(*part_count < part_max);
        segment_hooks hooks = {.cancel = &table->index_cancel};
        VEX_TRY(
            segment_build_with(table, rows + done, taken, &hooks, &parts[*part_count], arena, err));
        *part_count += 1;
        done += taken;
    }
    return VEX_OK;
}

static size_t part_max_of(const vexi_table *table, const vexi_row *const *rows, size_t count) {
    uint64_t limit = table->lake->config.segment_size_bytes;
    limit = limit != 0 ? limit : PART_SIZE_DEFAULT;
    uint64_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += row_size(&table->schema->schema, rows[i]);
    }
    return (size_t)(size / limit) + 2;
}

vex_status table_reindex(vexi_table *table, const table_segment *entry, vex_error *err) {
    const vexi_env *env = table->core->env;
    const vexi_segment *old = entry->segment;
    VEX_ASSERT(old->foreign);
    commit_segment *parts = NULL;
    size_t part_count = 0;
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    vex_status status = VEX_OK;
    bool unnamed = true;
    const vexi_row **rows = vexi_alloc_array(env, old->row_count + 1, sizeof *rows);
    if (rows == NULL) {
        status = vexi_no_memory(err, old->row_count * sizeof *rows);
        goto done;
    }
    size_t count = 0;
    for (uint64_t row = 0; row < old->row_count; row++) {
        if (!vexi_bits_get(entry->deleted, row)) {
            rows[count++] = &old->rows[row];
        }
    }
    size_t part_max = part_max_of(table, rows, count);
    parts = vexi_calloc(env, part_max, sizeof *parts);
    if (parts == NULL) {
        status = vexi_no_memory(err, part_max * sizeof *parts);
        goto done;
    }
    VEX_TRY_GOTO(status, done,
                 parts_build(table, rows, count, parts, part_max, &part_count, &arena, err));
    commit_request request = {
        .operation = "OPTIMIZE", .segments = parts, .segment_count = part_count, .replaced = entry};
    for (size_t i = 0; i < part_count; i++) {
        parts[i].add.data_change = false;
    }
    pthread_mutex_lock(&table->commit_lock);
    status = check_leaving(table, err);
    if (status == VEX_OK) {
        status = table_commit(table, &request, err);
        unnamed = request.unnamed;
    }
    pthread_mutex_unlock(&table->commit_lock);
    if (status == VEX_OK) {
        unnamed = false;
        vexi_log(env, 1, "%s: indexed, %zu rows in %zu segments", old->object_name, count,
                 part_count);
    }
done:
    for (size_t i = 0; i < part_count; i++) {
        vexi_bits_release(parts[i].deleted);
        if (unnamed) {
            segment_discard(table, &parts[i]);
        } else {
            vexi_segment_release(parts[i].segment);
        }
    }
    vexi_free(env, parts);
    vexi_free(env, rows);
    vexi_arena_deinit(&arena);
    return status;
}
