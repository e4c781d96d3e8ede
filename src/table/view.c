/* Views: what a reader sees.
 *
 * For each source the table keeps the bits of rows that newer sources hide, brought up to date when
 * a view is asked for: every memtable row not looked at yet (`resolved`) hides the row that it
 * supersedes in its own memtable, and rows of its id in all older sources. A view shares the bits;
 * they are copied before the next change if a view still holds them.
 *
 * Writers do not pass here: the view lock is taken by readers and by whoever publishes segments. */
#include "table/table_internal.h"

#include "base/bitmap.h"
#include "base/checksum.h"
#include "table/segment_graph.h"

typedef struct view_impl {
    vexi_view view; /* first */
    int references; /* atomic */
    const vexi_env *env;
    vexi_schema_box *schema;
    uint64_t changes; /* of the table when it was made */
    uint64_t active_count;
    bool damaged; /* a segment that it has was damaged when it was made */
    vexi_source *sources;
    vexi_bits **bits; /* per source, references */
} view_impl;

void vexi_view_retain(vexi_view *view) {
    __atomic_add_fetch(&((view_impl *)view)->references, 1, __ATOMIC_RELAXED);
}

void vexi_view_release(vexi_view *view) {
    view_impl *impl = (view_impl *)view;
    if (impl == NULL || __atomic_sub_fetch(&impl->references, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    const vexi_env *env = impl->env;
    vexi_schema_box_release(impl->schema);
    for (size_t i = 0; i < impl->view.source_count; i++) {
        vexi_bits_release(impl->bits[i]);
        vexi_memtable_release(impl->sources[i].memtable);
        /* The last segment may destroy the store and with it nothing that env needs. */
        vexi_segment_release(impl->sources[i].segment);
    }
    vexi_free(env, impl->sources);
    vexi_free(env, impl->bits);
    vexi_free(env, impl);
}

/* Make *bits writable and at least bit_count long. */
static vex_status bits_own(const vexi_env *env, vexi_bits **bits, uint64_t bit_count,
                           vex_error *err) {
    vexi_bits *old = *bits;
    if (old != NULL && old->bit_count >= bit_count &&
        __atomic_load_n(&old->references, __ATOMIC_ACQUIRE) == 1) {
        return VEX_OK;
    }
    if (old != NULL && old->bit_count > bit_count) {
        bit_count = old->bit_count;
    }
    vexi_bits *fresh = vexi_bits_create(env, bit_count, old);
    if (fresh == NULL) {
        return vexi_no_memory(err, bit_count / 8);
    }
    vexi_bits_release(old);
    *bits = fresh;
    return VEX_OK;
}

/* Hide the row of an id in a segment, if it is there. A damaged segment cannot be asked: its rows
 * are refused or left out by whoever reads it. */
static vex_status hide_in_segment(const vexi_env *env, table_segment *entry, vex_string id,
                                  uint64_t hash, vex_error *err) {
    if (vexi_segment_check(entry->segment, NULL) != VEX_OK) {
        return VEX_OK;
    }
    bool found;
    uint64_t row;
    vex_error damage;
    vex_status status = vexi_segment_find(entry->segment, id, hash, &found, &row, &damage);
    if (status == VEX_MEMORY) {
        if (err != NULL) {
            *err = damage;
        }
        return status;
    }
    if (status != VEX_OK) {
        /* Which of its rows are hidden is unknown now: nobody may read it any more. */
        vexi_segment_set_damage(entry->segment, status, &damage);
        return VEX_OK;
    }
    if (found && !vexi_bits_get(entry->hidden, row)) {
        VEX_TRY(bits_own(env, &entry->hidden, vexi_segment_row_count(entry->segment), err));
        vexi_bits_set(entry->hidden, row);
    }
    return VEX_OK;
}

/* Bring one memtable's rows up to `count` to bear on itself and the older memtables and segments.
 */
static vex_status resolve(vexi_table *table, table_memtable *entry, uint64_t count,
                          size_t older_count, vex_error *err) {
    const vexi_env *env = table->core->env;
    vexi_memtable *memtable = entry->memtable;
    for (; entry->resolved < count; entry->resolved++) {
        uint64_t row = entry->resolved;
        uint32_t previous = vexi_memtable_previous(memtable, row);
        if (previous != VEXI_NO_ROW || vexi_memtable_is_tombstone(memtable, row)) {
            /* Room for all of the memtable's rows so far saves most copies. */
            if (entry->hidden == NULL || entry->hidden->bit_count <= row ||
                __atomic_load_n(&entry->hidden->references, __ATOMIC_ACQUIRE) != 1) {
                VEX_TRY(bits_own(env, &entry->hidden, count + count / 2, err));
            }
            if (previous != VEXI_NO_ROW) {
                vexi_bits_set(entry->hidden, previous);
            }
            if (vexi_memtable_is_tombstone(memtable, row)) {
                vexi_bits_set(entry->hidden, row);
            }
        }
        if (previous != VEXI_NO_ROW) {
            continue; /* the first row of the id in this memtable did the rest */
        }
        vex_string id = vexi_memtable_row(memtable, row).id;
        uint64_t hash = vexi_memtable_hash(memtable, row);
        for (size_t i = 0; i < older_count; i++) {
            table_memtable *older = &table->sealed[i];
            uint64_t older_rows = vexi_memtable_count(older->memtable);
            uint64_t at;
            if (vexi_memtable_find(older->memtable, id, hash, older_rows, &at) &&
                !vexi_bits_get(older->hidden, at)) {
                VEX_TRY(bits_own(env, &older->hidden, older_rows, err));
                vexi_bits_set(older->hidden, at);
            }
        }
        for (size_t i = 0; i < table->segment_count; i++) {
            VEX_TRY(hide_in_segment(env, &table->segments[i], id, hash, err));
        }
    }
    /* A view reads as many bits as it has rows, also where the last rows hid nothing. */
    if (entry->hidden != NULL && entry->hidden->bit_count < count) {
        VEX_TRY(bits_own(env, &entry->hidden, count + count / 2, err));
    }
    return VEX_OK;
}

static void view_add(view_impl *impl, vexi_segment *segment, vexi_memtable *memtable,
                     uint64_t row_count, vexi_bits *hidden) {
    size_t i = impl->view.source_count++;
    impl->bits[i] = vexi_bits_retain(hidden);
    uint64_t hidden_count = hidden == NULL ? 0 : hidden->set_count;
    impl->sources[i] = (vexi_source){
        .segment = segment,
        .memtable = memtable,
        .row_count = row_count,
        .hidden = hidden == NULL || hidden_count == 0 ? NULL : hidden->words,
        .hidden_count = hidden_count,
    };
    impl->view.live_count += row_count - hidden_count;
}

/* The view lock is held. */
static vex_status view_build(vexi_table *table, vexi_view **out, vex_error *err) {
    const vexi_env *env = table->core->env;
    pthread_mutex_lock(&table->state_lock);
    bool dropped = table->dropped;
    uint64_t changes = table->changes;
    int64_t version = table->version;
    size_t sealed_count = table->sealed_count;
    vexi_memtable *active = table->active.memtable;
    uint64_t active_count = active == NULL ? 0 : vexi_memtable_count(active);
    if (active != NULL) {
        vexi_memtable_retain(active);
    }
    pthread_mutex_unlock(&table->state_lock);
    if (dropped) {
        vexi_memtable_release(active);
        return vexi_fail(err, VEX_NOT_FOUND, "no collection '%s'", table->name);
    }
    view_impl *cached = (view_impl *)table->cached;
    if (cached != NULL && cached->changes == changes && cached->active_count == active_count) {
        vexi_memtable_release(active);
        vexi_view_retain(table->cached);
        *out = table->cached;
        return VEX_OK;
    }
    /* Let go of the cached view first: bits that only it holds can then change in place. */
    vexi_view_release(table->cached);
    table->cached = NULL;

    /* Sealing (state lock alone) may move the active entry while we work: it keeps its memtable and
     * resolved count, so what counts is where the memtable is now. Only the tail of `sealed` and
     * `active` can change under the view lock, and only by sealing. */
    vex_status status = VEX_OK;
    for (size_t i = 0; i < sealed_count && status == VEX_OK; i++) {
        status = resolve(table, &table->sealed[i], vexi_memtable_count(table->sealed[i].memtable),
                         i, err);
    }
    table_memtable current = {.memtable = NULL};
    if (status == VEX_OK && active != NULL) {
        pthread_mutex_lock(&table->state_lock);
        table_memtable *entry =
            table->active.memtable == active ? &table->active : &table->sealed[sealed_count];
        VEX_ASSERT(entry->memtable == active);
        current = *entry;
        entry->hidden = NULL; /* ours while we work */
        pthread_mutex_unlock(&table->state_lock);
        status = resolve(table, &current, active_count, sealed_count, err);
        pthread_mutex_lock(&table->state_lock);
        entry = table->active.memtable == active ? &table->active : &table->sealed[sealed_count];
        VEX_ASSERT(entry->memtable == active);
        entry->hidden = current.hidden;
        entry->resolved = current.resolved; /* the rest is read under other locks */
        pthread_mutex_unlock(&table->state_lock);
    }
    view_impl *impl = NULL;
    if (status == VEX_OK) {
        size_t source_max = table->segment_count + sealed_count + 1;
        impl = vexi_calloc(env, 1, sizeof *impl);
        if (impl != NULL) {
            impl->env = env;
            impl->references = 1;
            impl->schema = vexi_schema_box_retain(table->schema);
            impl->sources = vexi_calloc(env, source_max, sizeof *impl->sources);
            impl->bits = vexi_calloc(env, source_max, sizeof *impl->bits);
        }
        if (impl == NULL || impl->sources == NULL || impl->bits == NULL) {
            vexi_view_release((vexi_view *)impl);
            impl = NULL;
            status = vexi_no_memory(err, source_max * sizeof(vexi_source));
        }
    }
    if (status == VEX_OK) {
        for (size_t i = 0; i < table->segment_count; i++) {
            table_segment *entry = &table->segments[i];
            view_add(impl, vexi_segment_retain(entry->segment), NULL,
                     vexi_segment_row_count(entry->segment), entry->hidden);
            impl->damaged = impl->damaged || vexi_segment_check(entry->segment, NULL) != VEX_OK;
        }
        for (size_t i = 0; i < sealed_count; i++) {
            table_memtable *entry = &table->sealed[i];
            vexi_memtable_retain(entry->memtable);
            view_add(impl, NULL, entry->memtable, vexi_memtable_count(entry->memtable),
                     entry->hidden);
        }
        if (active_count > 0) {
            vexi_memtable_retain(active);
            view_add(impl, NULL, active, active_count, current.hidden);
        }
        impl->view.schema = &impl->schema->schema;
        impl->view.sources = impl->sources;
        impl->view.version = version;
        impl->changes = changes;
        impl->active_count = active_count;
        table->cached = &impl->view;
        vexi_view_retain(table->cached);
        *out = &impl->view;
    }
    vexi_memtable_release(active);
    return status;
}

static vex_status view_get(vexi_table *table, vexi_view **out, vex_error *err) {
    pthread_mutex_lock(&table->view_lock);
    vex_status status = view_build(table, out, err);
    pthread_mutex_unlock(&table->view_lock);
    return status;
}

vex_status vexi_table_view(vexi_table *table, vexi_view **out, vex_error *err) {
    *out = NULL;
    VEX_TRY(view_get(table, out, err));
    if (!((view_impl *)*out)->damaged) {
        return VEX_OK;
    }
    /* An index file may have proved damaged just now, when ids were looked up in it. */
    bool mended = false;
    for (size_t i = 0; i < (*out)->source_count; i++) {
        vexi_segment *segment = (*out)->sources[i].segment;
        vex_error damage;
        if (segment != NULL && vexi_segment_mendable(segment) &&
            vexi_segment_check(segment, &damage) != VEX_OK && damage.status != VEX_IO) {
            mended = table_mend(table, segment, &damage, NULL) == VEX_OK || mended;
        }
    }
    if (mended) {
        vexi_view_release(*out);
        *out = NULL;
        VEX_TRY(view_get(table, out, err));
    }
    return VEX_OK;
}

void table_drop_views(vexi_table *table) {
    pthread_mutex_lock(&table->view_lock);
    vexi_view_release(table->cached);
    table->cached = NULL;
    pthread_mutex_unlock(&table->view_lock);
}

/* Hide in a new segment what the memtables that stay have already brought to bear on the others. */
static vex_status resolve_segment(vexi_table *table, table_segment *segment, size_t flushed_count,
                                  vex_error *err) {
    const vexi_env *env = table->core->env;
    table_memtable entries[TABLE_SEALED_MAX + 1];
    pthread_mutex_lock(&table->state_lock);
    size_t count = table->sealed_count;
    memcpy(entries, table->sealed, count * sizeof *entries);
    entries[count++] = table->active;
    pthread_mutex_unlock(&table->state_lock);
    /* A memtable sealed meanwhile is one of these: sealing moves entries, it adds an empty one. */
    for (size_t m = flushed_count; m < count; m++) {
        for (uint64_t row = 0; row < entries[m].resolved; row++) {
            vexi_memtable *memtable = entries[m].memtable;
            if (vexi_memtable_previous(memtable, row) == VEXI_NO_ROW) {
                VEX_TRY(hide_in_segment(env, segment, vexi_memtable_row(memtable, row).id,
                                        vexi_memtable_hash(memtable, row), err));
            }
        }
    }
    return VEX_OK;
}

/* The published entry of an open segment. Lists keep their order from version to version, so the
 * search goes on behind the last hit (*hint). */
static const table_segment *published_entry(const vexi_table *table, const vexi_segment *segment,
                                            size_t *hint) {
    for (size_t step = 0; step < table->segment_count; step++) {
        size_t at = (*hint + step) % table->segment_count;
        if (table->segments[at].segment == segment) {
            *hint = at + 1;
            return &table->segments[at];
        }
    }
    return NULL;
}

/* Room in `fresh` for the rows that wait in the log's queue, so that it may become the active
 * memtable. State lock. */
static vex_status fresh_reserve(const vexi_table *table, vexi_memtable *fresh, vex_error *err) {
    return vexi_memtable_reserve(fresh, vexi_memtable_count(fresh) + table->reserved_rows, err);
}

/* fresh: takes the place of all memtables, in the same step; or NULL. */
static vex_status publish(vexi_table *table, table_segment *segments, size_t segment_count,
                          size_t flushed_count, vexi_memtable *fresh, bool anew, int64_t version,
                          vex_error *err) {
    const vexi_env *env = table->core->env;
    vex_status status = VEX_OK;
    size_t hint = 0;
    pthread_mutex_lock(&table->view_lock);
    for (size_t i = 0; i < segment_count && status == VEX_OK; i++) {
        table_segment *entry = &segments[i];
        const table_segment *old = published_entry(table, entry->segment, &hint);
        entry->hidden = vexi_bits_retain(entry->deleted);
        /* Another engine may have brought rows back: then nothing of the old bits counts. */
        if (old == NULL || anew || !vexi_bits_contain(entry->deleted, old->deleted)) {
            /* What a fresh memtable hides, the next view works out. */
            status = fresh != NULL ? VEX_OK : resolve_segment(table, entry, flushed_count, err);
            continue;
        }
        /* What memtables hid stays hidden: flushed ones have it in the deletion vector now. */
        if (old->hidden != NULL && old->hidden != old->deleted) {
            if (entry->deleted == old->deleted) {
                vexi_bits_release(entry->hidden);
                entry->hidden = vexi_bits_retain(old->hidden);
            } else {
                status = bits_own(env, &entry->hidden, old->hidden->bit_count, err);
                if (status == VEX_OK) {
                    vexi_bits_add(entry->hidden, old->hidden);
                }
            }
        }
    }
    table_segment *gone = segments;
    size_t gone_count = segment_count;
    vexi_memtable *flushed[TABLE_SEALED_MAX + 1];
    vexi_bits *flushed_bits[TABLE_SEALED_MAX + 1];
    if (status == VEX_OK) {
        pthread_mutex_lock(&table->state_lock);
        status = fresh == NULL ? VEX_OK : fresh_reserve(table, fresh, err);
        if (status != VEX_OK) {
            pthread_mutex_unlock(&table->state_lock);
        }
    }
    if (status != VEX_OK) {
        flushed_count = 0;
    } else {
        gone = table->segments;
        gone_count = table->segment_count;
        table->segments = segments;
        table->segment_count = segment_count;
        for (size_t i = 0; i < flushed_count; i++) {
            flushed[i] = table->sealed[i].memtable;
            flushed_bits[i] = table->sealed[i].hidden;
        }
        table->sealed_count -= flushed_count;
        memmove(table->sealed, table->sealed + flushed_count,
                table->sealed_count * sizeof *table->sealed);
        if (fresh != NULL) {
            if (table->active.memtable != NULL) {
                flushed[flushed_count] = table->active.memtable;
                flushed_bits[flushed_count++] = table->active.hidden;
            }
            table->active = (table_memtable){.memtable = fresh};
            table->active_since_ns = vexi_monotonic_ns(env);
            __atomic_add_fetch(&table->lake->memory_bytes, vexi_memtable_size_bytes(fresh),
                               __ATOMIC_RELAXED);
        }
        table->version = version;
        table->changes++;
        table->segment_lists++;
        pthread_mutex_unlock(&table->state_lock);
        vexi_view_release(table->cached);
        table->cached = NULL;
    }
    pthread_mutex_unlock(&table->view_lock);
    if (status == VEX_OK) {
        table_center_update(table);
        lake_index_soon(table->lake);
    }
    for (size_t i = 0; i < flushed_count; i++) {
        __atomic_sub_fetch(&table->lake->memory_bytes, vexi_memtable_size_bytes(flushed[i]),
                           __ATOMIC_RELAXED);
        vexi_bits_release(flushed_bits[i]);
        vexi_memtable_release(flushed[i]);
    }
    table_segments_free(env, gone, gone_count);
    return status;
}

vex_status table_publish(vexi_table *table, table_segment *segments, size_t segment_count,
                         size_t flushed_count, bool anew, int64_t version, vex_error *err) {
    return publish(table, segments, segment_count, flushed_count, NULL, anew, version, err);
}

vex_status table_publish_fresh(vexi_table *table, table_segment *segments, size_t segment_count,
                               vexi_memtable *fresh, bool anew, int64_t version, vex_error *err) {
    return publish(table, segments, segment_count, table->sealed_count, fresh, anew, version, err);
}

/* ---- Reading ----------------------------------------------------------------------------------
 */

vex_status vexi_view_find(const vexi_view *view, vex_string id, bool *found, uint32_t *source,
                          uint64_t *row, vex_error *err) {
    *found = false;
    uint64_t hash = vexi_hash64(id.data, id.size);
    for (size_t i = view->source_count; i-- > 0;) {
        const vexi_source *s = &view->sources[i];
        uint64_t at;
        bool here;
        if (s->memtable != NULL) {
            here = vexi_memtable_find(s->memtable, id, hash, s->row_count, &at);
            if (here && vexi_memtable_is_tombstone(s->memtable, at)) {
                return VEX_OK;
            }
        } else {
            *source = (uint32_t)i; /* where it fails, for vexi_view_index_damaged */
            VEX_TRY(vexi_segment_find(s->segment, id, hash, &here, &at, err));
            here = here && (s->hidden == NULL || !vexi_bitmap_get(s->hidden, at));
        }
        if (here) {
            *found = true;
            *source = (uint32_t)i;
            *row = at;
            return VEX_OK;
        }
    }
    return VEX_OK;
}

void vexi_table_memory_view(vexi_table *table, vexi_memory_view *out) {
    out->count = 0;
    out->schema = &table->schema->schema;
    pthread_mutex_lock(&table->state_lock);
    out->complete = table->segment_count == 0;
    if (table->active.memtable != NULL) {
        out->memtables[out->count++] = table->active.memtable;
    }
    for (size_t i = table->sealed_count; i-- > 0;) {
        out->memtables[out->count++] = table->sealed[i].memtable;
    }
    for (size_t i = 0; i < out->count; i++) {
        vexi_memtable_retain(out->memtables[i]);
        out->row_counts[i] = vexi_memtable_count(out->memtables[i]);
    }
    pthread_mutex_unlock(&table->state_lock);
}

void vexi_memory_view_release(vexi_memory_view *view) {
    for (size_t i = 0; i < view->count; i++) {
        vexi_memtable_release(view->memtables[i]);
    }
    view->count = 0;
}

void vexi_memory_view_find(const vexi_memory_view *view, vex_string id, bool *known, bool *found,
                           vexi_memtable **memtable, uint64_t *row) {
    uint64_t hash = vexi_hash64(id.data, id.size);
    *known = true;
    *found = false;
    for (size_t i = 0; i < view->count; i++) {
        if (vexi_memtable_find(view->memtables[i], id, hash, view->row_counts[i], row)) {
            *found = !vexi_memtable_is_tombstone(view->memtables[i], *row);
            *memtable = view->memtables[i];
            return;
        }
    }
    *known = view->complete;
}

vex_status vexi_source_id(const vexi_source *source, uint64_t row, vex_string *out,
                          vex_error *err) {
    if (source->memtable != NULL) {
        *out = vexi_memtable_row(source->memtable, row).id;
        return VEX_OK;
    }
    return vexi_segment_id(source->segment, row, out, err);
}

bool vexi_source_is_remote(const vexi_source *source) {
    return source->segment != NULL && vexi_segment_is_remote(source->segment);
}

vex_status vexi_source_ids_need(const vexi_source *source, const uint64_t *rows, size_t count,
                                vexi_read_cost *cost, vex_error *err) {
    return source->segment == NULL ? VEX_OK
                                   : vexi_segment_ids_need(source->segment, rows, count, cost, err);
}

vex_status vexi_source_runs(const vexi_source *source, const vexi_row_range *ranges,
                            size_t range_count, vexi_arena *arena, vexi_run **runs,
                            size_t *run_count, vexi_read_cost *cost, vex_error *err) {
    if (source->segment != NULL) {
        return vexi_segment_runs(source->segment, ranges, range_count, arena, runs, run_count, cost,
                                 err);
    }
    *run_count = 0;
    *runs = vexi_arena_array(arena, range_count * 32, sizeof **runs);
    if (*runs == NULL) {
        return vexi_no_memory(err, range_count * 32 * sizeof **runs);
    }
    for (size_t i = 0; i < range_count; i++) {
        VEX_ASSERT(ranges[i].first_row + ranges[i].count <= source->row_count);
        *run_count += vexi_memtable_runs(source->memtable, ranges[i].first_row, ranges[i].count,
                                         *runs + *run_count);
    }
    return VEX_OK;
}

vex_status vexi_source_cells(const vexi_source *source, const vexi_schema *schema,
                             const uint32_t *columns, size_t column_count, const uint64_t *rows,
                             size_t row_count, vexi_arena *arena, vexi_cell *out,
                             vex_search_stats *stats, vexi_read_cost *cost, vex_error *err) {
    if (source->segment != NULL) {
        return vexi_segment_cells(source->segment, schema, columns, column_count, rows, row_count,
                                  arena, out, stats, cost, err);
    }
    for (size_t r = 0; r < row_count; r++) {
        vexi_row row = vexi_memtable_row(source->memtable, rows[r]);
        for (size_t c = 0; c < column_count; c++) {
            vexi_row_cell(&row, columns[c], &out[c * row_count + r]);
        }
    }
    return VEX_OK;
}

const vexi_rotation *vexi_view_rotation(const vexi_view *view) {
    return &((const view_impl *)view)->schema->rotation;
}

void vexi_source_codes(const vexi_source *source, uint64_t row_count, vexi_memtable_codes *out) {
    *out = (vexi_memtable_codes){.center = NULL};
    if (source->memtable != NULL) {
        vexi_memtable_codes_of(source->memtable,
                               row_count < source->row_count ? row_count : source->row_count, out);
    }
}

const vexi_graph_file *vexi_source_graph(const vexi_source *source) {
    return source->segment == NULL ? NULL : vexi_segment_graph_file(source->segment);
}

vex_status vexi_source_lists(const vexi_source *source, const uint32_t *lists, size_t list_count,
                             vexi_arena *arena, const uint8_t **out, vexi_read_cost *cost,
                             vex_error *err) {
    VEX_ASSERT(source->segment != NULL);
    return vexi_segment_lists(source->segment, lists, list_count, arena, out, cost, err);
}

const vexi_index_file *vexi_source_ivf(const vexi_source *source) {
    return source->segment == NULL ? NULL : vexi_segment_ivf(source->segment);
}

vex_status vexi_source_check(const vexi_source *source, vex_error *err) {
    return source->segment == NULL ? VEX_OK : vexi_segment_check(source->segment, err);
}

const char *vexi_source_name(const vexi_source *source) {
    return source->segment == NULL ? "memtable" : vexi_segment_object_name(source->segment);
}

float vexi_source_length_max(const vexi_source *source) {
    return source->segment == NULL ? vexi_memtable_length_max(source->memtable)
                                   : vexi_segment_length_max(source->segment);
}

void vexi_source_length_told(const vexi_source *source, float length) {
    if (source->segment != NULL) {
        vexi_segment_length_told(source->segment, length);
    }
}
