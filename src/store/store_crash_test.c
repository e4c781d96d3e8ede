/* A file store on a disk that crashes: what was acknowledged is there whole, what was not is whole
 * or absent.
 *
 * A model runs beside the store. For each name it holds the state that was acknowledged last, and
 * the one that a failed call may have left instead. A fixed sequence of calls is run once for every
 * step of the disk, with a crash (or a failure) at that step and several seeds for what the crash
 * leaves; then the disk restarts, the store is opened again and compared. Random sequences with
 * many crashes follow. That the comparison finds something is shown by disks that lie about a
 * sync. */
#include "check.h"
#include "store/disk.h"

enum { SIZE_MAX_OBJECT = 1 << 20, STATE_ABSENT = 0, NAME_COUNT = 9, OP_COUNT_MAX = 64 };

static const char *const names[NAME_COUNT] = {
    "c/data/a.parquet",      "c/data/_delta_log/0.json", "c/data/_delta_log/1.json",
    "c/index/a.vector.ivf",  "deep/er/and/deeper/x",     "top",
    ".vexlake/wal/0001.wal", ".vexlake/wal/0002.wal",    "c/wal/0003.wal"};
enum { FIRST_LOG = 6 };

typedef enum op_kind { OP_PUT, OP_PUT_IF_ABSENT, OP_REMOVE, OP_CREATE, OP_APPEND, OP_SYNC } op_kind;

typedef struct op {
    op_kind kind;
    uint32_t name;
    uint32_t size;
} op;

/* Every kind of call, new and old folders, overwriting and re-creating, logs with a synced and an
 * unsynced end. */
static const op fixed_ops[] = {{OP_PUT, 0, 3000},
                               {OP_PUT_IF_ABSENT, 1, 700},
                               {OP_CREATE, 6, 0},
                               {OP_APPEND, 6, 100},
                               {OP_SYNC, 6, 0},
                               {OP_APPEND, 6, 2000},
                               {OP_PUT_IF_ABSENT, 1, 800},
                               {OP_PUT, 0, 5000},
                               {OP_APPEND, 6, 10},
                               {OP_SYNC, 6, 0},
                               {OP_PUT, 4, 1},
                               {OP_REMOVE, 0, 0},
                               {OP_PUT_IF_ABSENT, 2, 600},
                               {OP_CREATE, 7, 0},
                               {OP_APPEND, 7, 900},
                               {OP_PUT, 3, 2048},
                               {OP_REMOVE, 6, 0},
                               {OP_PUT, 0, 100},
                               {OP_SYNC, 7, 0},
                               {OP_APPEND, 7, 5},
                               {OP_APPEND, 7, 1500},
                               {OP_PUT, 5, 0},
                               {OP_CREATE, 8, 0},
                               {OP_APPEND, 8, 4000}};

/* A state of an object: STATE_ABSENT, or the version whose bytes it holds. */
typedef struct model_object {
    uint32_t acknowledged;
    bool in_doubt; /* the state may be `doubtful`, too */
    uint32_t doubtful;
} model_object;

/* A log of version v holds the bytes of v from 0 on. */
typedef struct model_log {
    bool may_be_absent;
    size_t synced;
    size_t appended; /* at most so many bytes are there */
    vexi_log_file *file;
} model_log;

typedef struct model {
    uint32_t version; /* of the newest put or log */
    uint32_t sizes[4096];
    model_object objects[NAME_COUNT];
    model_log logs[NAME_COUNT];
    bool root_acknowledged;
    const char *problem; /* the first difference found */
    uint32_t problem_name;
} model;

typedef struct world {
    vexi_disk *disk;
    vexi_store *store;
    model model;
} world;

static uint8_t content_byte(uint32_t version, size_t i) {
    uint64_t state = (uint64_t)version << 32 | i / 8;
    return (uint8_t)(vex_test_random(&state) >> (i % 8 * 8));
}

static void fill_content(uint32_t version, size_t from, uint8_t *out, size_t size) {
    for (size_t i = 0; i < size; i++) {
        out[i] = content_byte(version, from + i);
    }
}

static bool is_content(uint32_t version, const uint8_t *data, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (data[i] != content_byte(version, i)) {
            return false;
        }
    }
    return true;
}

static uint32_t next_version(model *m, uint32_t size) {
    m->version++;
    CHECK(m->version < sizeof m->sizes / sizeof *m->sizes);
    m->sizes[m->version] = size;
    return m->version;
}

/* ---- Calls ----------------------------------------------------------------------------------- */

static vex_status put_content(world *w, const op *call, uint32_t version) {
    uint8_t bytes[8192];
    CHECK(call->size <= sizeof bytes);
    fill_content(version, 0, bytes, call->size);
    vexi_span parts[] = {vexi_span_of(bytes, call->size / 3),
                         vexi_span_of(bytes + call->size / 3, call->size - call->size / 3)};
    vex_error err;
    return call->kind == OP_PUT
               ? vexi_store_put(w->store, names[call->name], parts, 2, &err)
               : vexi_store_put_if_absent(w->store, names[call->name], parts, 2, &err);
}

/* A put or remove that failed: its new state is in doubt, beside the old one. */
static void doubt(model_object *object, uint32_t state) {
    object->in_doubt = true;
    object->doubtful = state;
}

static void run_put(world *w, const op *call) {
    model_object *object = &w->model.objects[call->name];
    uint32_t version = next_version(&w->model, call->size);
    bool was_there = object->acknowledged != STATE_ABSENT;
    vex_status status = put_content(w, call, version);
    if (status == VEX_OK) {
        CHECK(call->kind == OP_PUT || !was_there || object->in_doubt);
        *object = (model_object){.acknowledged = version};
    } else if (status == VEX_EXISTS) {
        CHECK(call->kind == OP_PUT_IF_ABSENT && (was_there || object->in_doubt));
        if (!was_there) {
            *object = (model_object){.acknowledged = object->doubtful};
        } else if (object->doubtful == STATE_ABSENT) {
            object->in_doubt = false; /* "exists" is durable */
        }
    } else if (call->kind == OP_PUT || status == VEX_UNKNOWN_OUTCOME ||
               vexi_disk_sim_crashed(w->disk)) {
        if (call->kind == OP_PUT || !was_there) {
            doubt(object, version);
        }
    }
    /* Else put_if_absent says that nothing happened, and is held to it. */
}

static void run_remove(world *w, const op *call) {
    vex_error err;
    vex_status status = vexi_store_remove(w->store, names[call->name], &err);
    model_object *object = &w->model.objects[call->name];
    model_log *log = &w->model.logs[call->name];
    if (status == VEX_OK) {
        *object = (model_object){0};
        log->may_be_absent = true;
    } else {
        doubt(object, STATE_ABSENT);
        log->may_be_absent = true;
    }
}

static void close_log(model_log *log) {
    vexi_store_log_close(log->file);
    log->file = NULL;
}

static void run_log(world *w, const op *call) {
    model_object *object = &w->model.objects[call->name];
    model_log *log = &w->model.logs[call->name];
    if (call->kind == OP_CREATE) {
        if (log->file != NULL) {
            return;
        }
        vex_status status = vexi_store_log_create(w->store, names[call->name], &log->file, NULL);
        if (status == VEX_OK) {
            CHECK(object->acknowledged == STATE_ABSENT || log->may_be_absent);
            *object = (model_object){.acknowledged = next_version(&w->model, 0)};
            *log = (model_log){.file = log->file};
        } else if (status != VEX_EXISTS && object->acknowledged == STATE_ABSENT) {
            /* Absent or empty: a log of no bytes. */
            *object = (model_object){.acknowledged = next_version(&w->model, 0)};
            *log = (model_log){.may_be_absent = true};
        }
        return;
    }
    if (log->file == NULL) {
        return; /* its creation failed */
    }
    if (call->kind == OP_SYNC) {
        if (vexi_store_log_sync(log->file, NULL) == VEX_OK) {
            log->synced = log->appended;
        } else {
            CHECK_FAILS(VEX_IO, vexi_store_log_sync(log->file, &err));
            close_log(log);
        }
        return;
    }
    uint8_t bytes[8192];
    CHECK(call->size <= sizeof bytes);
    fill_content(object->acknowledged, log->appended, bytes, call->size);
    vexi_span part = vexi_span_of(bytes, call->size);
    log->appended += call->size;
    if (vexi_store_log_append(log->file, &part, 1, NULL) != VEX_OK) {
        CHECK_FAILS(VEX_IO, vexi_store_log_append(log->file, &part, 1, &err));
        close_log(log);
    }
}

static void run_op(world *w, const op *call) {
    switch (call->kind) {
    case OP_PUT:
    case OP_PUT_IF_ABSENT:
        run_put(w, call);
        break;
    case OP_REMOVE:
        /* A removed log goes on in the model as absent. */
        close_log(&w->model.logs[call->name]);
        run_remove(w, call);
        break;
    default:
        run_log(w, call);
        break;
    }
}

/* ---- Comparing ------------------------------------------------------------------------------- */

static void differ(model *m, uint32_t name, const char *problem) {
    if (m->problem == NULL) {
        m->problem = problem;
        m->problem_name = name;
    }
}

static bool is_state(const model *m, uint32_t state, bool found, vexi_span bytes) {
    if (state == STATE_ABSENT) {
        return !found;
    }
    return found && bytes.size == m->sizes[state] && is_content(state, bytes.data, bytes.size);
}

static void compare_log(model *m, uint32_t name, bool found, vexi_span bytes) {
    const model_log *log = &m->logs[name];
    uint32_t version = m->objects[name].acknowledged;
    if (version == STATE_ABSENT) {
        if (found && !m->objects[name].in_doubt) {
            differ(m, name, "a removed log is back");
        }
    } else if (!found) {
        if (!log->may_be_absent) {
            differ(m, name, "a log is gone");
        }
    } else if (bytes.size < log->synced || !is_content(version, bytes.data, log->synced)) {
        differ(m, name, "synced bytes of a log are gone");
    } else if (bytes.size > log->appended) {
        differ(m, name, "a log is longer than what was appended");
    }
}

/* Compare all names with the model, and take over what is there as acknowledged. */
static void compare(world *w) {
    model *m = &w->model;
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    size_t found_count = 0;
    for (uint32_t i = 0; i < NAME_COUNT; i++) {
        vexi_span bytes;
        vex_error err;
        vex_status status =
            vexi_store_get_all(w->store, names[i], SIZE_MAX_OBJECT, &arena, &bytes, &err);
        CHECK(status == VEX_OK || status == VEX_NOT_FOUND);
        bool found = status == VEX_OK;
        found_count += found;
        vexi_mapping mapping;
        CHECK((vexi_store_map(w->store, names[i], &mapping, &err) == VEX_OK) == found);
        if (found) {
            CHECK_EQ(mapping.size, bytes.size);
            CHECK(bytes.size == 0 || memcmp(mapping.data, bytes.data, bytes.size) == 0);
        }
        vexi_store_unmap(w->store, &mapping);
        model_object *object = &m->objects[i];
        if (i >= FIRST_LOG) {
            compare_log(m, i, found, bytes);
            if (!found) {
                *object = (model_object){0};
                m->logs[i] = (model_log){0};
            } else {
                /* Nobody writes it any more; what is there now was durable at the restart. */
                m->logs[i].may_be_absent = false;
                object->in_doubt = false;
            }
            continue;
        }
        if (object->in_doubt && is_state(m, object->doubtful, found, bytes)) {
            object->acknowledged = object->doubtful;
        } else if (!is_state(m, object->acknowledged, found, bytes)) {
            differ(m, i, found ? "an object has other bytes" : "an object is gone");
        }
        object->in_doubt = false;
    }
    /* Nothing else is there: no temporary file, no name that was never put. */
    vexi_listing listing;
    CHECK_OK(vexi_store_list(w->store, "", NULL, false, &arena, &listing, &err));
    size_t listed_count = 0;
    for (size_t i = 0; i < listing.count; i++) {
        listed_count += strcmp(listing.entries[i].name, ".vexlake/lock") != 0;
    }
    if (listed_count != found_count) {
        differ(m, 0, "the listing differs");
    }
    vexi_arena_deinit(&arena);
}

static size_t leftover_count(vexi_disk *disk) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_listing listing;
    size_t count = 0;
    if (disk->ops->list_folder(disk, "lake/here/.tmp-put", &arena, &listing, NULL) == VEX_OK) {
        count = listing.count;
    }
    vexi_arena_deinit(&arena);
    return count;
}

/* ---- Runs ------------------------------------------------------------------------------------ */

/* Which call of the disk lies: it says that it synced, and does not. */
typedef enum lie { LIE_NONE, LIE_SYNC, LIE_SYNC_FOLDER } lie;

static vex_status lie_sync(vexi_disk_file *file, vex_error *err) {
    (void)file;
    (void)err;
    return VEX_OK;
}

static vex_status lie_sync_folder(vexi_disk *disk, const char *path, vex_error *err) {
    (void)disk;
    (void)path;
    (void)err;
    return VEX_OK;
}

static bool open_store(world *w) {
    vex_error err;
    vex_status status =
        vexi_store_file_create(vex_test_env(), w->disk, "lake/here", true, &w->store, &err);
    if (status == VEX_OK) {
        status = vexi_store_lock(w->store, ".vexlake/lock", &err);
    }
    if (status != VEX_OK) {
        vexi_store_destroy(w->store);
        w->store = NULL;
    }
    return status == VEX_OK;
}

static void close_store(world *w) {
    for (uint32_t i = 0; i < NAME_COUNT; i++) {
        close_log(&w->model.logs[i]);
    }
    vexi_store_destroy(w->store);
    w->store = NULL;
}

/* After power comes back: the store must open, hold what it should, and take new objects. */
static void restart(world *w, uint64_t seed) {
    close_store(w);
    vexi_disk_sim_restart(w->disk, seed);
    CHECK(open_store(w));
    CHECK_EQ(leftover_count(w->disk), 0);
    compare(w);
}

static void report(const model *m, const char *what, uint64_t step, uint64_t seed) {
    if (m->problem != NULL) {
        fprintf(stderr, "%s at step %llu, seed %llu: %s: %s\n", what, (unsigned long long)step,
                (unsigned long long)seed, names[m->problem_name], m->problem);
        exit(1);
    }
}

static void world_create(world *w, uint64_t seed) {
    *w = (world){0};
    CHECK_OK(vexi_disk_sim_create(vex_test_env(), seed, &w->disk, &err));
}

static void world_destroy(world *w) {
    close_store(w);
    vexi_disk_destroy(w->disk);
}

/* The fixed sequence with a crash (status VEX_OK) or a failure at `step`, then a crash at the end
 * and a comparison. Returns the steps that were taken. */
static uint64_t run_fixed(uint64_t step, vex_status failure, uint64_t seed, lie which,
                          const char **problem) {
    static world w;
    world_create(&w, seed);
    vexi_disk_ops lying = *w.disk->ops;
    if (which == LIE_SYNC) {
        lying.sync = lie_sync;
    } else if (which == LIE_SYNC_FOLDER) {
        lying.sync_folder = lie_sync_folder;
    }
    const vexi_disk_ops *honest = w.disk->ops;
    w.disk->ops = &lying;
    if (failure == VEX_OK) {
        vexi_disk_sim_crash_at(w.disk, step);
    } else {
        vexi_disk_sim_fail_at(w.disk, step, failure);
    }
    bool opened = open_store(&w);
    if (!opened && failure != VEX_OK) {
        opened = open_store(&w);
        CHECK(opened); /* a single failure does not keep the store shut */
    }
    for (size_t i = 0; i < sizeof fixed_ops / sizeof *fixed_ops && opened; i++) {
        run_op(&w, &fixed_ops[i]);
        if (vexi_disk_sim_crashed(w.disk)) {
            break;
        }
    }
    uint64_t steps = vexi_disk_sim_steps(w.disk);
    restart(&w, seed * 7919 + step);
    w.disk->ops = honest;
    *problem = w.model.problem;
    if (which == LIE_NONE) {
        report(&w.model, failure == VEX_OK ? "crash" : "failure", step, seed);
        /* A second restart changes nothing: what was seen after the first was durable. */
        restart(&w, seed + 1);
        report(&w.model, "second restart", step, seed);
        run_op(&w, &(op){OP_PUT, 5, 10});
        restart(&w, seed + 2);
        report(&w.model, "put after restart", step, seed);
    }
    world_destroy(&w);
    return steps;
}

TEST(crash_at_every_step) {
    uint64_t seed = vex_test_seed(20);
    const char *problem = NULL;
    uint64_t steps = run_fixed(0, VEX_OK, seed, LIE_NONE, &problem);
    uint64_t seed_count = vex_test_effort(60);
    printf("    %llu steps, %llu seeds\n", (unsigned long long)steps,
           (unsigned long long)seed_count);
    CHECK(steps > 60);
    for (uint64_t step = 1; step <= steps; step++) {
        for (uint64_t i = 0; i < seed_count; i++) {
            run_fixed(step, VEX_OK, seed + i, LIE_NONE, &problem);
        }
    }
}

TEST(failure_at_every_step) {
    uint64_t seed = vex_test_seed(21);
    const char *problem = NULL;
    uint64_t steps = run_fixed(0, VEX_OK, seed, LIE_NONE, &problem);
    uint64_t seed_count = vex_test_effort(20);
    for (uint64_t step = 1; step <= steps; step++) {
        for (uint64_t i = 0; i < seed_count; i++) {
            run_fixed(step, VEX_IO, seed + i, LIE_NONE, &problem);
            run_fixed(step, VEX_FULL, seed + i, LIE_NONE, &problem);
        }
    }
}

/* Whenever a put_if_absent leaves its outcome open, a second try with the same bytes settles it: it
 * wins, or says that the object is there, and either holds through a crash. */
TEST(unknown_outcome_settles) {
    vexi_span part = vexi_span_of("the same bytes", 14);
    size_t unknown = 0;
    size_t still_unknown = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        for (uint64_t step = 1; step <= 12; step++) {
            static world w;
            world_create(&w, seed);
            CHECK(open_store(&w));
            CHECK_OK(vexi_store_put(w.store, "log/first", &part, 1, &err));
            uint64_t before = vexi_disk_sim_steps(w.disk);
            vexi_disk_sim_fail_at(w.disk, before + step, VEX_IO);
            vex_status status = vexi_store_put_if_absent(w.store, "log/2", &part, 1, NULL);
            if (status == VEX_UNKNOWN_OUTCOME) {
                unknown++;
                if (seed % 2 == 0) {
                    /* The folder's sync fails once more. */
                    vexi_disk_sim_fail_at(w.disk, vexi_disk_sim_steps(w.disk) + 1, VEX_IO);
                    status = vexi_store_put_if_absent(w.store, "log/2", &part, 1, NULL);
                    CHECK_EQ(status, VEX_UNKNOWN_OUTCOME);
                    still_unknown++;
                }
                CHECK_FAILS(VEX_EXISTS, vexi_store_put_if_absent(w.store, "log/2", &part, 1, &err));
                status = VEX_OK;
            }
            vexi_store_destroy(w.store);
            w.store = NULL;
            vexi_disk_sim_restart(w.disk, seed);
            CHECK(open_store(&w));
            uint64_t size = 0;
            CHECK_EQ(vexi_store_size(w.store, "log/2", &size, NULL),
                     status == VEX_OK ? VEX_OK : VEX_NOT_FOUND);
            CHECK_EQ(size, status == VEX_OK ? 14 : 0);
            world_destroy(&w);
        }
    }
    CHECK(unknown == 40 && still_unknown == 20); /* one step of each seed: the folder's sync */
}

/* The tests above would notice a store that forgets to sync. */
TEST(lies_are_noticed) {
    for (lie which = LIE_SYNC; which <= LIE_SYNC_FOLDER; which++) {
        uint64_t noticed = 0;
        for (uint64_t seed = 1; seed <= 20; seed++) {
            const char *problem = NULL;
            run_fixed(0, VEX_OK, seed, which, &problem);
            noticed += problem != NULL;
        }
        CHECK(noticed >= 10);
    }
}

/* Random calls with a crash every now and then; the model goes on over all of them. */
TEST(random_crashes) {
    uint64_t random = vex_test_seed(22);
    uint64_t rounds = vex_test_effort(300);
    for (uint64_t round = 0; round < rounds; round++) {
        static world w;
        world_create(&w, random);
        CHECK(open_store(&w));
        uint64_t first = random;
        for (uint32_t life = 0; life < 8; life++) {
            vexi_disk_sim_crash_at(w.disk,
                                   vexi_disk_sim_steps(w.disk) + 1 + vex_test_below(&random, 60));
            for (uint32_t i = 0; i < 40 && !vexi_disk_sim_crashed(w.disk); i++) {
                op call = {.size = (uint32_t)vex_test_below(&random, 3000)};
                if (vex_test_below(&random, 2) == 0) {
                    call.kind = (op_kind)vex_test_below(&random, OP_REMOVE + 1);
                    call.name = (uint32_t)vex_test_below(&random, FIRST_LOG);
                } else {
                    call.name =
                        FIRST_LOG + (uint32_t)vex_test_below(&random, NAME_COUNT - FIRST_LOG);
                    call.kind = OP_REMOVE + (op_kind)vex_test_below(&random, 4);
                }
                run_op(&w, &call);
            }
            restart(&w, vex_test_random(&random));
            report(&w.model, "random calls", life, first);
        }
        world_destroy(&w);
    }
}

TEST_MAIN(RUN(crash_at_every_step); RUN(failure_at_every_step); RUN(unknown_outcome_settles);
          RUN(lies_are_noticed); RUN(random_crashes))
