#include "query/batch.h"

#include "check.h"

static int keepers_destroyed;

static void keeper_destroyed(vexi_keeper *keeper) {
    (void)keeper;
    keepers_destroyed++;
}

/* A keeper on the test's environment; the test holds one reference. */
static void keeper_init(vexi_keeper *keeper) {
    *keeper = (vexi_keeper){.env = vex_test_env(), .destroy = keeper_destroyed};
    atomic_init(&keeper->references, 1);
    keepers_destroyed = 0;
}

static vex_string text(const char *s) {
    return (vex_string){s, strlen(s)};
}

TEST(empty) {
    vexi_keeper keeper;
    keeper_init(&keeper);
    vexi_batch_column columns[4] = {
        {.name = text("a"), .kind = VEXI_BATCH_UINT32},
        {.name = text("b"), .kind = VEXI_BATCH_STRING},
        {.name = text("c"), .kind = VEXI_BATCH_VECTOR, .dimension = 4096},
        {.name = text("d"), .kind = VEXI_BATCH_CELL_BOOL},
    };
    struct ArrowArray batch;
    CHECK_OK(vexi_batch_build(&keeper, columns, 4, 0, NULL, &batch, &err));
    CHECK_EQ(batch.length, 0);
    CHECK_EQ(batch.n_children, 4);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(batch.children[i]->length, 0);
        CHECK_EQ(batch.children[i]->null_count, 0);
        for (int64_t b = 1; b < batch.children[i]->n_buffers; b++) {
            CHECK(batch.children[i]->buffers[b] != NULL);
        }
    }
    CHECK_EQ(((const int32_t *)batch.children[1]->buffers[1])[0], 0);
    CHECK_EQ(atomic_load(&keeper.references), 2);
    batch.release(&batch);
    CHECK(batch.release == NULL);
    CHECK_EQ(atomic_load(&keeper.references), 1);

    CHECK_OK(vexi_batch_build(&keeper, NULL, 0, 7, NULL, &batch, &err));
    CHECK_EQ(batch.length, 7);
    batch.release(&batch);
    vexi_keeper_release(&keeper);
    CHECK_EQ(keepers_destroyed, 1);
}

/* Every order of releasing a parent and its moved children frees the block exactly once. */
TEST(children_move_out) {
    for (int order = 0; order < 6; order++) {
        vexi_keeper keeper;
        keeper_init(&keeper);
        float vectors[4] = {1, 2, 3, 4};
        const uint8_t *pointers[2] = {(const uint8_t *)vectors, (const uint8_t *)(vectors + 2)};
        vex_string strings[2] = {{"x", 1}, {NULL, 0}};
        vexi_batch_column columns[2] = {
            {.name = text("v"), .kind = VEXI_BATCH_VECTOR, .dimension = 2, .data = pointers},
            {.name = text("s"), .kind = VEXI_BATCH_STRING, .nullable = true, .data = strings},
        };
        struct ArrowArray batch, moved[2];
        struct ArrowSchema schema, fields[2];
        CHECK_OK(vexi_batch_build(&keeper, columns, 2, 2, NULL, &batch, &err));
        CHECK_OK(vexi_batch_schema(&keeper, columns, 2, &schema, &err));
        for (int i = 0; i < 2; i++) {
            moved[i] = *batch.children[i];
            batch.children[i]->release = NULL;
            fields[i] = *schema.children[i];
            schema.children[i]->release = NULL;
        }
        vexi_keeper_release(&keeper); /* the handle is closed */
        struct ArrowArray *arrays[3] = {&batch, &moved[0], &moved[1]};
        struct ArrowSchema *schemas[3] = {&schema, &fields[0], &fields[1]};
        static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                         {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
        for (int i = 0; i < 3; i++) {
            int which = orders[order][i];
            if (moved[0].release != NULL) {
                CHECK(((const float *)moved[0].children[0]->buffers[1])[3] == 4);
                CHECK(strcmp(fields[0].format, "+w:2") == 0);
                CHECK(strcmp(fields[0].children[0]->format, "f") == 0);
            }
            if (moved[1].release != NULL) {
                CHECK_EQ(moved[1].null_count, 1);
                CHECK(strcmp(fields[1].name, "s") == 0 && fields[1].flags == ARROW_FLAG_NULLABLE);
            }
            CHECK_EQ(keepers_destroyed, 0);
            arrays[which]->release(arrays[which]);
            schemas[which]->release(schemas[which]);
        }
        CHECK_EQ(keepers_destroyed, 1);
    }
}

/* A grandchild may be moved too: the values of a vector column. */
TEST(grandchildren_move_out) {
    vexi_keeper keeper;
    keeper_init(&keeper);
    float vector[2] = {5, 6};
    const uint8_t *pointer = (const uint8_t *)vector;
    vexi_batch_column column = {
        .name = text("v"), .kind = VEXI_BATCH_VECTOR, .dimension = 2, .data = &pointer};
    struct ArrowArray batch;
    CHECK_OK(vexi_batch_build(&keeper, &column, 1, 1, NULL, &batch, &err));
    struct ArrowArray values = *batch.children[0]->children[0];
    batch.children[0]->children[0]->release = NULL;
    batch.release(&batch);
    CHECK(((const float *)values.buffers[1])[1] == 6);
    CHECK_EQ(atomic_load(&keeper.references), 2);
    values.release(&values);
    CHECK_EQ(atomic_load(&keeper.references), 1);
}

TEST(cells) {
    vexi_keeper keeper;
    keeper_init(&keeper);
    enum { COUNT = 19 };
    vexi_cell cells[COUNT];
    for (int i = 0; i < COUNT; i++) {
        cells[i] = (vexi_cell){.is_null = i % 3 == 0, .as.boolean = i % 2 == 0};
    }
    vexi_batch_column column = {
        .name = text("b"), .kind = VEXI_BATCH_CELL_BOOL, .nullable = true, .data = cells};
    struct ArrowArray batch;
    CHECK_OK(vexi_batch_build(&keeper, &column, 1, COUNT, NULL, &batch, &err));
    const struct ArrowArray *array = batch.children[0];
    const uint8_t *valid = array->buffers[0], *bits = array->buffers[1];
    CHECK_EQ(array->null_count, 7);
    for (int i = 0; i < COUNT; i++) {
        CHECK((valid[i / 8] >> (i % 8) & 1) == (i % 3 != 0));
        CHECK((bits[i / 8] >> (i % 8) & 1) == (i % 3 != 0 && i % 2 == 0));
    }
    batch.release(&batch);
}

/* Offsets are 32-bit: over 2 GiB is refused before anything is copied. */
TEST(strings_over_two_gibibytes) {
    vexi_keeper keeper;
    keeper_init(&keeper);
    enum { COUNT = 33 };
    static char byte;
    vex_string strings[COUNT];
    for (int i = 0; i < COUNT; i++) {
        strings[i] = (vex_string){&byte, VEX_PAYLOAD_SIZE_MAX}; /* never read */
    }
    vexi_batch_column column = {
        .name = text("payload"), .kind = VEXI_BATCH_STRING, .data = strings};
    struct ArrowArray batch;
    vex_error err;
    CHECK(vexi_batch_build(&keeper, &column, 1, COUNT, NULL, &batch, &err) == VEX_LIMIT);
    CHECK(strstr(err.message, "payload") != NULL && batch.release == NULL);
    CHECK_EQ(atomic_load(&keeper.references), 1);
}

TEST_MAIN(RUN(empty); RUN(children_move_out); RUN(grandchildren_move_out); RUN(cells);
          RUN(strings_over_two_gibibytes))
