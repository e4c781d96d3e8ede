/* Counting: commands, and searches by collection.
 *
 * Entries of collections are made by the loop alone, so it finds them without a lock; whoever reads
 * names from another thread takes it, and so does the loop when it makes an entry or gives one to
 * another collection. There is room for VEXI_METRIC_COLLECTIONS_MAX: labels must not grow with what
 * clients send, and a page must stay of a size that can be scraped. What finds no room is counted
 * together and told as such. An entry is made for a collection that answered, so names of
 * collections that do not exist take none.
 *
 * A search pays about 120 nanoseconds for all of it, three readings of the clock among them. */
#include "server/metrics.h"

#include <stdlib.h>

#include "base/checksum.h"

void vexi_metrics_init(vexi_metrics *metrics) {
    VEX_ASSERT(pthread_mutex_init(&metrics->collections_lock, NULL) == 0);
}

void vexi_metrics_deinit(vexi_metrics *metrics) {
    pthread_mutex_destroy(&metrics->collections_lock);
}

void vexi_metrics_command(vexi_metrics *metrics, size_t command, uint64_t ns, uint64_t count,
                          uint64_t errors) {
    VEX_ASSERT(command < VEXI_METRIC_COMMANDS_MAX);
    vexi_histogram_add(&metrics->by_command[command].latency, ns, count);
    if (errors > 0) {
        vexi_metric_add(&metrics->by_command[command].errors, errors);
    }
}

static vex_string entry_name(const vexi_collection_metrics *entry) {
    return (vex_string){.data = entry->name, .size = entry->name_size};
}

/* ---- Entries ------------------------------------------------------------------------------------
 */

/* Slot of the name, or the empty one where it would go. There are four times as many as entries. */
static uint16_t *find_slot(vexi_metrics *metrics, uint64_t hash, vex_string name) {
    for (uint64_t i = hash;; i++) {
        uint16_t *slot = &metrics->slots[i % VEXI_METRIC_SLOTS];
        if (*slot == 0) {
            return slot;
        }
        const vexi_collection_metrics *entry = &metrics->collections[*slot - 1];
        if (entry->hash == hash && vexi_string_equal(entry_name(entry), name)) {
            return slot;
        }
    }
}

static void fill_slots(vexi_metrics *metrics) {
    memset(metrics->slots, 0, sizeof metrics->slots);
    for (uint32_t i = 0; i < metrics->collection_count; i++) {
        const vexi_collection_metrics *entry = &metrics->collections[i];
        *find_slot(metrics, entry->hash, entry_name(entry)) = (uint16_t)(i + 1);
    }
}

/* An entry that may be used, or NULL. With the lock. */
static vexi_collection_metrics *free_entry(vexi_metrics *metrics) {
    if (metrics->collection_count < VEXI_METRIC_COLLECTIONS_MAX) {
        return &metrics->collections[metrics->collection_count++];
    }
    for (uint32_t i = 0; i < metrics->collection_count; i++) {
        if (atomic_load_explicit(&metrics->collections[i].gone, memory_order_relaxed)) {
            return &metrics->collections[i];
        }
    }
    return NULL;
}

static vexi_collection_metrics *add_entry(vexi_metrics *metrics, uint64_t hash, vex_string name) {
    pthread_mutex_lock(&metrics->collections_lock);
    vexi_collection_metrics *entry = free_entry(metrics);
    if (entry != NULL) {
        for (uint32_t b = 0; b < VEXI_HISTOGRAM_BUCKETS; b++) {
            vexi_metric_set(&entry->latency.buckets[b], 0);
        }
        vexi_metric_set(&entry->latency.sum_ns, 0);
        vexi_metric_set(&entry->errors, 0);
        entry->hash = hash;
        entry->name_size = (uint32_t)name.size;
        memcpy(entry->name, name.data, name.size);
        atomic_store_explicit(&entry->gone, false, memory_order_relaxed);
        fill_slots(metrics);
    }
    pthread_mutex_unlock(&metrics->collections_lock);
    return entry;
}

void vexi_metrics_search(vexi_metrics *metrics, vex_string collection, uint64_t ns, uint64_t count,
                         uint64_t errors) {
    if (collection.size > VEX_NAME_SIZE_MAX) {
        return;
    }
    uint64_t hash = vexi_hash64(collection.data, collection.size);
    uint16_t slot = *find_slot(metrics, hash, collection);
    vexi_collection_metrics *entry = slot != 0 ? &metrics->collections[slot - 1] : NULL;
    if (entry == NULL) {
        entry = errors < count ? add_entry(metrics, hash, collection) : NULL;
    } else if (atomic_load_explicit(&entry->gone, memory_order_relaxed) && errors < count) {
        atomic_store_explicit(&entry->gone, false, memory_order_relaxed); /* made again */
    }
    if (entry == NULL) {
        vexi_metric_add(&metrics->searches_unlisted, count);
        return;
    }
    vexi_histogram_add(&entry->latency, ns, count);
    if (errors > 0) {
        vexi_metric_add(&entry->errors, errors);
    }
}

static int compare_names(const void *a, const void *b) {
    const vex_string *left = a;
    const vex_string *right = b;
    size_t size = left->size < right->size ? left->size : right->size;
    int order = size > 0 ? memcmp(left->data, right->data, size) : 0;
    return order != 0 ? order : (left->size > right->size) - (left->size < right->size);
}

void vexi_metrics_keep(vexi_metrics *metrics, const vex_string *names, size_t count) {
    pthread_mutex_lock(&metrics->collections_lock);
    for (uint32_t i = 0; i < metrics->collection_count; i++) {
        vexi_collection_metrics *entry = &metrics->collections[i];
        vex_string name = entry_name(entry);
        bool there =
            count > 0 && bsearch(&name, names, count, sizeof *names, compare_names) != NULL;
        atomic_store_explicit(&entry->gone, !there, memory_order_relaxed);
    }
    pthread_mutex_unlock(&metrics->collections_lock);
}
