/* The names that the cache knows.
 *
 * Objects are immutable, so a cached block is right for ever, unless its name comes to mean another
 * object. Blocks therefore go by a number, the name's id of the day, and never by the name: a put
 * or remove gives the name a new id, after which nothing finds the old blocks, and the queues let
 * them go in their time. That makes forgetting one step under one mutex, and a fetch that began
 * before it cannot bring old bytes back: it ends under the old id.
 *
 * While a name is being written it has no id to read by at all (writers > 0), since a reader might
 * otherwise fetch the old object under the new id before the write reaches the inner store.
 *
 * The table is bounded: names that nothing holds leave by the clock algorithm when a shard has too
 * many. One that comes back gets a new id, which costs its blocks and nothing else. Records on disk
 * hold their names, so the table may grow to what level 2 knows. */
#include "store/cache_internal.h"

#include "base/checksum.h"

enum {
    NAME_COUNT_MAX = 4096, /* per shard, beside those that records on disk hold */
    BUCKET_COUNT_MIN = 64,
    HAND_STEPS_MAX = 16
};

static vexi_cache_names_shard *shard_of(vexi_cache_names *names, uint64_t hash) {
    return &names->shards[(hash >> 56) % VEXI_CACHE_SHARD_COUNT_MAX];
}

vex_status vexi_cache_names_init(vexi_cache_names *names, const vexi_env *env, vex_error *err) {
    names->env = env;
    atomic_init(&names->next_id, 1);
    vex_status status = VEX_OK;
    for (size_t i = 0; i < VEXI_CACHE_SHARD_COUNT_MAX; i++) {
        vexi_cache_names_shard *shard = &names->shards[i];
        *shard = (vexi_cache_names_shard){.bucket_count = BUCKET_COUNT_MIN};
        pthread_mutex_init(&shard->mutex, NULL);
        shard->buckets = vexi_calloc(env, BUCKET_COUNT_MIN, sizeof *shard->buckets);
        if (shard->buckets == NULL) {
            status = vexi_no_memory(err, BUCKET_COUNT_MIN * sizeof *shard->buckets);
        }
    }
    return status;
}

void vexi_cache_names_deinit(vexi_cache_names *names) {
    for (size_t i = 0; i < VEXI_CACHE_SHARD_COUNT_MAX; i++) {
        vexi_cache_names_shard *shard = &names->shards[i];
        for (size_t b = 0; shard->buckets != NULL && b < shard->bucket_count; b++) {
            while (shard->buckets[b] != NULL) {
                vexi_cache_name *next = shard->buckets[b]->next;
                vexi_free(names->env, shard->buckets[b]);
                shard->buckets[b] = next;
            }
        }
        vexi_free(names->env, shard->buckets);
        pthread_mutex_destroy(&shard->mutex);
    }
}

/* ---- With the shard's mutex held ------------------------------------------------------------- */

static vexi_cache_name *lookup(const vexi_cache_names_shard *shard, const char *text,
                               uint64_t hash) {
    vexi_cache_name *name = shard->buckets[hash & (shard->bucket_count - 1)];
    while (name != NULL && (name->hash != hash || strcmp(name->text, text) != 0)) {
        name = name->next;
    }
    return name;
}

static void unlink_name(vexi_cache_names_shard *shard, vexi_cache_name *name) {
    vexi_cache_name **link = &shard->buckets[name->hash & (shard->bucket_count - 1)];
    while (*link != name) {
        link = &(*link)->next;
    }
    *link = name->next;
    if (name->newer == name) {
        shard->newest = NULL;
    } else {
        name->newer->older = name->older;
        name->older->newer = name->newer;
        shard->newest = shard->newest == name ? name->older : shard->newest;
    }
    shard->count--;
}

/* In the ring newest->newer is the oldest, so that moving `newest` on turns the hand. */
static void link_name(vexi_cache_names_shard *shard, vexi_cache_name *name) {
    vexi_cache_name **bucket = &shard->buckets[name->hash & (shard->bucket_count - 1)];
    name->next = *bucket;
    *bucket = name;
    if (shard->newest == NULL) {
        name->newer = name;
        name->older = name;
    } else {
        name->older = shard->newest;
        name->newer = shard->newest->newer;
        name->older->newer = name;
        name->newer->older = name;
    }
    shard->newest = name;
    shard->count++;
}

/* Without memory the chains get longer, no more. */
static void grow_buckets(vexi_cache_names *names, vexi_cache_names_shard *shard) {
    size_t wanted = shard->bucket_count * 2;
    vexi_cache_name **buckets = vexi_calloc(names->env, wanted, sizeof *buckets);
    if (buckets == NULL) {
        return;
    }
    for (size_t i = 0; i < shard->bucket_count; i++) {
        while (shard->buckets[i] != NULL) {
            vexi_cache_name *name = shard->buckets[i];
            shard->buckets[i] = name->next;
            name->next = buckets[name->hash & (wanted - 1)];
            buckets[name->hash & (wanted - 1)] = name;
        }
    }
    vexi_free(names->env, shard->buckets);
    shard->buckets = buckets;
    shard->bucket_count = wanted;
}

static void make_room(vexi_cache_names *names, vexi_cache_names_shard *shard) {
    for (int i = 0; i < HAND_STEPS_MAX && shard->count >= NAME_COUNT_MAX; i++) {
        vexi_cache_name *oldest = shard->newest->newer;
        if (oldest->holds == 0 && oldest->writers == 0 && !oldest->used) {
            unlink_name(shard, oldest);
            vexi_free(names->env, oldest);
            continue;
        }
        oldest->used = false;
        shard->newest = oldest;
    }
}

static vexi_cache_name *intern(vexi_cache_names *names, vexi_cache_names_shard *shard,
                               const char *text, uint64_t hash) {
    vexi_cache_name *name = lookup(shard, text, hash);
    if (name != NULL) {
        name->used = true;
        return name;
    }
    size_t text_size = strlen(text) + 1;
    name = vexi_alloc(names->env, sizeof *name + text_size);
    if (name == NULL) {
        return NULL;
    }
    *name = (vexi_cache_name){.hash = hash, .id = atomic_fetch_add(&names->next_id, 1)};
    memcpy(name->text, text, text_size);
    make_room(names, shard);
    if (shard->count >= shard->bucket_count) {
        grow_buckets(names, shard);
    }
    link_name(shard, name);
    return name;
}

static void renew(vexi_cache_names *names, vexi_cache_name *name) {
    name->id = atomic_fetch_add(&names->next_id, 1);
    name->size_known = false;
}

/* ---- The door -------------------------------------------------------------------------------- */

static uint64_t hash_of(const char *name) {
    return vexi_hash64(name, strlen(name));
}

vexi_cache_ident vexi_cache_names_find(vexi_cache_names *names, const char *text) {
    vexi_cache_ident ident = {0};
    uint64_t hash = hash_of(text);
    vexi_cache_names_shard *shard = shard_of(names, hash);
    pthread_mutex_lock(&shard->mutex);
    const vexi_cache_name *name = intern(names, shard, text, hash);
    if (name != NULL) {
        ident = (vexi_cache_ident){.id = name->id,
                                   .size_bytes = name->size_bytes,
                                   .size_known = name->size_known,
                                   .is_cached = name->writers == 0};
    }
    pthread_mutex_unlock(&shard->mutex);
    return ident;
}

void vexi_cache_names_learn(vexi_cache_names *names, const char *text, uint64_t id,
                            uint64_t size_bytes) {
    uint64_t hash = hash_of(text);
    vexi_cache_names_shard *shard = shard_of(names, hash);
    pthread_mutex_lock(&shard->mutex);
    vexi_cache_name *name = lookup(shard, text, hash);
    if (name != NULL && name->id == id && name->writers == 0) {
        /* Records that an earlier run left are of this size or of another object. */
        if (name->size_bytes != size_bytes) {
            renew(names, name);
        }
        name->size_bytes = size_bytes;
        name->size_known = true;
    }
    pthread_mutex_unlock(&shard->mutex);
}

void vexi_cache_names_tell(vexi_cache_names *names, const char *text, uint64_t size_bytes) {
    uint64_t hash = hash_of(text);
    vexi_cache_names_shard *shard = shard_of(names, hash);
    pthread_mutex_lock(&shard->mutex);
    vexi_cache_name *name = intern(names, shard, text, hash);
    if (name != NULL && name->writers == 0) {
        if (name->size_bytes != size_bytes) {
            renew(names, name);
        }
        name->size_bytes = size_bytes;
        name->size_known = true;
    }
    pthread_mutex_unlock(&shard->mutex);
}

vex_status vexi_cache_names_begin_write(vexi_cache_names *names, const char *text, bool *holds,
                                        vex_error *err) {
    *holds = false;
    uint64_t hash = hash_of(text);
    vexi_cache_names_shard *shard = shard_of(names, hash);
    pthread_mutex_lock(&shard->mutex);
    vexi_cache_name *name = intern(names, shard, text, hash);
    if (name != NULL) {
        renew(names, name);
        name->writers++;
        *holds = name->holds > 0;
    }
    pthread_mutex_unlock(&shard->mutex);
    return name != NULL ? VEX_OK : vexi_no_memory(err, sizeof *name + strlen(text) + 1);
}

void vexi_cache_names_end_write(vexi_cache_names *names, const char *text, uint64_t size_bytes) {
    uint64_t hash = hash_of(text);
    vexi_cache_names_shard *shard = shard_of(names, hash);
    pthread_mutex_lock(&shard->mutex);
    vexi_cache_name *name = lookup(shard, text, hash);
    VEX_ASSERT(name != NULL && name->writers > 0); /* writers keep it in the table */
    name->writers--;
    renew(names, name);
    if (size_bytes != UINT64_MAX && name->writers == 0) {
        name->size_bytes = size_bytes;
        name->size_known = true;
    }
    pthread_mutex_unlock(&shard->mutex);
}

vexi_cache_name *vexi_cache_names_hold(vexi_cache_names *names, const char *text, uint64_t id,
                                       uint64_t *size_bytes) {
    *size_bytes = 0;
    uint64_t hash = hash_of(text);
    vexi_cache_names_shard *shard = shard_of(names, hash);
    pthread_mutex_lock(&shard->mutex);
    vexi_cache_name *name = lookup(shard, text, hash);
    if (name != NULL && name->id == id && name->writers == 0) {
        name->holds++;
        *size_bytes = name->size_bytes;
    } else {
        name = NULL;
    }
    pthread_mutex_unlock(&shard->mutex);
    return name;
}

vexi_cache_name *vexi_cache_names_recover(vexi_cache_names *names, const char *text,
                                          uint64_t size_bytes, uint64_t *id) {
    *id = 0;
    uint64_t hash = hash_of(text);
    vexi_cache_names_shard *shard = shard_of(names, hash);
    pthread_mutex_lock(&shard->mutex);
    vexi_cache_name *name = intern(names, shard, text, hash);
    if (name != NULL) {
        if (name->holds > 0 && name->size_bytes != size_bytes) {
            renew(names, name); /* the later record is right, the earlier ones are another object */
        }
        name->size_bytes = size_bytes;
        name->holds++;
        *id = name->id;
    }
    pthread_mutex_unlock(&shard->mutex);
    return name;
}

void vexi_cache_names_release(vexi_cache_names *names, vexi_cache_name *name) {
    vexi_cache_names_shard *shard = shard_of(names, name->hash);
    pthread_mutex_lock(&shard->mutex);
    VEX_ASSERT(name->holds > 0);
    name->holds--;
    pthread_mutex_unlock(&shard->mutex);
}
