/* Arrow in: every accepted layout, and everything that is refused, by the column's name. */
#include "api_test.h"

/* ---- A producer ------------------------------------------------------------------------------ */

/* Arrays that borrow their buffers; release only marks them. */
static int releases; /* of the top-level structures */

static void schema_release(struct ArrowSchema *schema) {
    for (int64_t i = 0; i < schema->n_children; i++) {
        if (schema->children[i] != NULL && schema->children[i]->release != NULL) {
            schema->children[i]->release(schema->children[i]);
        }
    }
    schema->release = NULL;
}

/* For a schema whose count of children is a lie. */
static void schema_release_shallow(struct ArrowSchema *schema) {
    schema->release = NULL;
}

static void array_release(struct ArrowArray *array) {
    for (int64_t i = 0; i < array->n_children; i++) {
        if (array->children[i] != NULL && array->children[i]->release != NULL) {
            array->children[i]->release(array->children[i]);
        }
    }
    array->release = NULL;
}

enum { COLUMNS = 9, ROWS = 3 };

/* A batch of ROWS rows with every column; tests bend it before they put it. */
typedef struct producer {
    struct ArrowSchema schema, fields[COLUMNS], item;
    struct ArrowSchema *field_pointers[COLUMNS], *item_pointer;
    struct ArrowArray batch, arrays[COLUMNS], values;
    struct ArrowArray *array_pointers[COLUMNS], *values_pointer;
    const void *buffers[COLUMNS][3], *value_buffers[2], *batch_buffers[1];
    int batches_left;
    int schema_code, next_code;
    const char *error;
} producer;

enum { ID, VECTOR, ATTRIBUTES, PAYLOAD, N, X, S, B, T };
static const char *const names[COLUMNS] = {"id", "vector", "attributes", "payload", "n",
                                           "x",  "s",      "b",          "t"};

static const int32_t id_offsets[] = {0, 1, 3, 6};
static const int64_t id_offsets_large[] = {0, 1, 3, 6};
static const char id_bytes[] = "abbccc";
static float vector_values[] = {1, 2, 3, 4, 5, 6, 7, 8};
static const int32_t list_offsets[] = {0, 2, 4, 6};
static const int64_t list_offsets_large[] = {0, 2, 4, 6};
static const int32_t json_offsets[] = {0, 2, 2, 9};
static const char json_bytes[] = "{}{\"a\":1}";
static const uint8_t json_validity[] = {0x05}; /* the middle one is null */
static const int32_t blob_offsets[] = {0, 0, 2, 3};
static const int64_t n_values[] = {10, 20, 30};
static const double x_values[] = {0.5, 1.5, 2.5};
static const uint8_t b_values[] = {0x02};
static const uint8_t n_validity[] = {0x03};

static void producer_init(producer *p) {
    static const char *const formats[COLUMNS] = {
        "u", "+w:2", "u", "z", "l", "g", "u", "b", "tsu:Europe/Berlin"};
    static const int buffer_counts[COLUMNS] = {3, 1, 3, 3, 2, 2, 3, 2, 2};
    memset(p, 0, sizeof *p);
    p->schema = (struct ArrowSchema){.format = "+s",
                                     .name = "",
                                     .n_children = COLUMNS,
                                     .children = p->field_pointers,
                                     .release = schema_release};
    p->batch = (struct ArrowArray){.length = ROWS,
                                   .n_buffers = 1,
                                   .buffers = p->batch_buffers,
                                   .n_children = COLUMNS,
                                   .children = p->array_pointers,
                                   .release = array_release};
    for (int i = 0; i < COLUMNS; i++) {
        p->fields[i] =
            (struct ArrowSchema){.format = formats[i], .name = names[i], .release = schema_release};
        p->field_pointers[i] = &p->fields[i];
        p->arrays[i] = (struct ArrowArray){.length = ROWS,
                                           .n_buffers = buffer_counts[i],
                                           .buffers = p->buffers[i],
                                           .release = array_release};
        p->array_pointers[i] = &p->arrays[i];
    }
    p->item = (struct ArrowSchema){.format = "f", .name = "item", .release = schema_release};
    p->item_pointer = &p->item;
    p->fields[VECTOR].n_children = 1;
    p->fields[VECTOR].children = &p->item_pointer;
    p->values = (struct ArrowArray){
        .length = 6, .n_buffers = 2, .buffers = p->value_buffers, .release = array_release};
    p->values_pointer = &p->values;
    p->arrays[VECTOR].n_children = 1;
    p->arrays[VECTOR].children = &p->values_pointer;
    p->value_buffers[1] = vector_values;
    p->buffers[ID][1] = p->buffers[S][1] = id_offsets;
    p->buffers[ID][2] = p->buffers[S][2] = id_bytes;
    p->buffers[ATTRIBUTES][0] = json_validity;
    p->buffers[ATTRIBUTES][1] = json_offsets;
    p->buffers[ATTRIBUTES][2] = json_bytes;
    p->arrays[ATTRIBUTES].null_count = -1; /* not counted: legal */
    p->buffers[PAYLOAD][1] = blob_offsets;
    p->buffers[PAYLOAD][2] = "\0\xff\n";
    p->buffers[N][0] = n_validity;
    p->buffers[N][1] = p->buffers[T][1] = n_values;
    p->arrays[N].null_count = 1;
    p->buffers[X][1] = x_values;
    p->buffers[B][1] = b_values;
    p->batches_left = 1;
}

static int get_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out) {
    producer *p = stream->private_data;
    if (p->schema_code == 0) {
        *out = p->schema;
    }
    return p->schema_code;
}

static int get_next(struct ArrowArrayStream *stream, struct ArrowArray *out) {
    producer *p = stream->private_data;
    memset(out, 0, sizeof *out);
    if (p->batches_left == 0) {
        return p->next_code;
    }
    p->batches_left--;
    /* Children belong to the batch: a second one has them again. */
    for (int i = 0; i < COLUMNS; i++) {
        if (p->array_pointers[i] != NULL) {
            p->array_pointers[i]->release = array_release;
        }
    }
    p->values.release = array_release;
    *out = p->batch;
    return 0;
}

static const char *get_last_error(struct ArrowArrayStream *stream) {
    return ((producer *)stream->private_data)->error;
}

static void stream_release(struct ArrowArrayStream *stream) {
    releases++;
    stream->release = NULL;
}

static vex_status put(vex_lake *lake, const char *name, producer *p, uint64_t *count,
                      vex_error *err) {
    struct ArrowArrayStream stream = {get_schema, get_next, get_last_error, stream_release, p};
    int before = releases;
    vex_status status = vex_put(lake, str(name), &stream, count, err);
    CHECK(stream.release == NULL);
    CHECK_EQ(releases, before + 1);
    return status;
}

static vex_lake *lake_open(void) {
    static const vex_column columns[] = {{{"n", 1}, VEX_TYPE_INT64},
                                         {{"x", 1}, VEX_TYPE_DOUBLE},
                                         {{"s", 1}, VEX_TYPE_STRING},
                                         {{"b", 1}, VEX_TYPE_BOOL},
                                         {{"t", 1}, VEX_TYPE_TIMESTAMP}};
    vex_lake *lake;
    vex_collection_options options = {
        .size = sizeof options, .dimension = 2, .column_count = 5, .columns = columns};
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    CHECK_OK(vex_collection_create(lake, str("c"), &options, &err));
    return lake;
}

/* Row `which` of the producer's batch is stored under its id. */
static void check_row(vex_lake *lake, int which) {
    static const char *const ids[] = {"a", "bb", "ccc"};
    result r;
    CHECK_OK(get_columns(lake, "c", ids[which], &r, &err));
    CHECK(string_is(result_id(&r, 0), ids[which]));
    CHECK(memcmp(result_vector(&r, 2, 0), vector_values + 2 * which, 8) == 0);
    vex_string attributes = result_string(&r, "attributes", "u", 0);
    CHECK(which == 1 ? attributes.data == NULL
                     : string_is(attributes, which == 0 ? "{}" : "{\"a\":1}"));
    CHECK_EQ(result_string(&r, "payload", "z", 0).size, which == 0 ? 0 : 3 - which);
    CHECK(string_is(result_string(&r, "s", "u", 0), ids[which]));
    const struct ArrowArray *n = r.batch.children[result_column(&r, "n", "l")];
    const struct ArrowArray *t = r.batch.children[result_column(&r, "t", "tsu:UTC")];
    const struct ArrowArray *x = r.batch.children[result_column(&r, "x", "g")];
    const struct ArrowArray *b = r.batch.children[result_column(&r, "b", "b")];
    CHECK(which == 2 ? array_is_null(n, 0)
                     : ((const int64_t *)n->buffers[1])[0] == n_values[which]);
    CHECK(((const int64_t *)t->buffers[1])[0] == n_values[which]);
    CHECK(((const double *)x->buffers[1])[0] == x_values[which]);
    CHECK(((const uint8_t *)b->buffers[1])[0] == (which == 1));
    result_release(&r);
}

static uint64_t row_count(vex_lake *lake) {
    vex_collection_info *info = malloc(sizeof *info);
    CHECK(info != NULL);
    CHECK_OK(vex_collection_describe(lake, str("c"), info, &err));
    uint64_t count = info->row_count;
    free(info);
    return count;
}

/* ---- Accepted -------------------------------------------------------------------------------- */

TEST(layouts) {
    float *unaligned = malloc(sizeof vector_values + 1);
    CHECK(unaligned != NULL);
    memcpy((char *)unaligned + 1, vector_values, sizeof vector_values);
    for (int kind = 0; kind < 6; kind++) {
        vex_lake *lake = lake_open();
        producer p;
        uint64_t count = 99;
        producer_init(&p);
        if (kind == 1 || kind == 2) {
            p.fields[VECTOR].format = kind == 1 ? "+l" : "+L";
            p.arrays[VECTOR].n_buffers = 2;
            p.buffers[VECTOR][1] =
                kind == 1 ? (const void *)list_offsets : (const void *)list_offsets_large;
        } else if (kind == 3) {
            p.fields[ID].format = p.fields[S].format = "U";
            p.buffers[ID][1] = p.buffers[S][1] = id_offsets_large;
            p.fields[T].format = "tsu:";
        } else if (kind == 4) {
            p.value_buffers[1] = (char *)unaligned + 1;
        } else if (kind == 5) { /* columns in another order */
            struct ArrowSchema *field = p.field_pointers[ID];
            struct ArrowArray *array = p.array_pointers[ID];
            p.field_pointers[ID] = p.field_pointers[T];
            p.array_pointers[ID] = p.array_pointers[T];
            p.field_pointers[T] = field;
            p.array_pointers[T] = array;
        }
        CHECK_OK(put(lake, "c", &p, &count, &err));
        CHECK_EQ(count, ROWS);
        for (int i = 0; i < ROWS; i++) {
            check_row(lake, i);
        }
        CHECK_OK(vex_lake_close(lake, &err));
    }
    free(unaligned);
}

/* A slice is a batch with an offset; children may have offsets of their own. */
TEST(offsets) {
    for (int kind = 0; kind < 3; kind++) {
        vex_lake *lake = lake_open();
        producer p;
        uint64_t count;
        producer_init(&p);
        p.fields[VECTOR].format = kind == 2 ? "+l" : "+w:2";
        if (kind == 2) {
            p.arrays[VECTOR].n_buffers = 2;
            p.buffers[VECTOR][1] = list_offsets;
        }
        p.batch.length = 2;
        if (kind == 0) {
            p.batch.offset = 1;
        } else {
            for (int i = 0; i < COLUMNS; i++) {
                p.arrays[i].offset = 1;
                p.arrays[i].length = 2;
            }
        }
        CHECK_OK(put(lake, "c", &p, &count, &err));
        CHECK_EQ(count, 2);
        CHECK_EQ(row_count(lake), 2);
        check_row(lake, 1);
        check_row(lake, 2);
        CHECK_OK(vex_lake_close(lake, &err));
    }
    /* The values' own offset shifts all vectors. */
    vex_lake *lake = lake_open();
    producer p;
    producer_init(&p);
    p.values.offset = 2;
    CHECK_OK(put(lake, "c", &p, NULL, &err));
    result r;
    CHECK_OK(get_columns(lake, "c", "ccc", &r, &err));
    CHECK(result_vector(&r, 2, 0)[0] == 7 && result_vector(&r, 2, 0)[1] == 8);
    result_release(&r);
    CHECK_OK(vex_lake_close(lake, &err));
}

TEST(several_batches_and_none) {
    vex_lake *lake = lake_open();
    producer p;
    uint64_t count = 99;
    producer_init(&p);
    p.batches_left = 0;
    CHECK_OK(put(lake, "c", &p, &count, &err));
    CHECK_EQ(count, 0);
    producer_init(&p);
    p.batches_left = 2;
    CHECK_OK(put(lake, "c", &p, &count, &err));
    CHECK_EQ(count, 2 * ROWS);
    CHECK_EQ(row_count(lake), ROWS);
    producer_init(&p);
    p.batch.length = 0;
    CHECK_OK(put(lake, "c", &p, &count, &err));
    CHECK_EQ(count, 0);
    /* Only what must be there. */
    producer_init(&p);
    p.schema.n_children = p.batch.n_children = 2;
    CHECK_OK(put(lake, "c", &p, &count, &err));
    result r;
    CHECK_OK(get_columns(lake, "c", "a", &r, &err));
    CHECK(result_string(&r, "attributes", "u", 0).data == NULL);
    CHECK(result_string(&r, "s", "u", 0).data == NULL);
    result_release(&r);
    CHECK_OK(vex_lake_close(lake, &err));
}

/* ---- Refused --------------------------------------------------------------------------------- */

static void refuse(vex_lake *lake, producer *p, vex_status expected, const char *part) {
    vex_error err = {0};
    uint64_t count = 99;
    vex_status status = put(lake, "c", p, &count, &err);
    if (status != expected || strstr(err.message, part) == NULL) {
        fprintf(stderr, "%s: '%s' lacks '%s'\n", vex_status_text(status), err.message, part);
        exit(1);
    }
    CHECK_EQ(count, 0);
    CHECK_EQ(row_count(lake), 0);
}

TEST(wrong_types) {
    static const char *const wrong[COLUMNS][6] = {
        {"z", "l", "+s", "vu", ""},
        {"f", "+w:", "+w:x", "+w:2x", "+w:99999999999", "u"},
        {"z", "g"},
        {"u", "w:4"},
        {"i", "L", "g", "u", "tsu:"},
        {"f", "l"},
        {"z", "l"},
        {"c", "l", "u"},
        {"tss:", "tsn:UTC", "l", "tdD"},
    };
    vex_lake *lake = lake_open();
    producer p;
    for (int c = 0; c < COLUMNS; c++) {
        for (int i = 0; i < 6 && wrong[c][i] != NULL; i++) {
            producer_init(&p);
            p.fields[c].format = wrong[c][i];
            char quoted[32];
            snprintf(quoted, sizeof quoted, "'%s'", names[c]);
            refuse(lake, &p, VEX_INVALID, quoted);
        }
        producer_init(&p);
        struct ArrowSchema dictionary = p.item;
        p.fields[c].dictionary = &dictionary;
        refuse(lake, &p, VEX_INVALID, "dictionary");
    }
    producer_init(&p);
    p.item.format = "g";
    refuse(lake, &p, VEX_INVALID, "float");
    producer_init(&p);
    p.fields[VECTOR].n_children = 0;
    refuse(lake, &p, VEX_INVALID, "vector");
    producer_init(&p);
    p.fields[S].name = "other";
    refuse(lake, &p, VEX_NOT_FOUND, "other");
    producer_init(&p);
    p.fields[S].name = "id";
    refuse(lake, &p, VEX_INVALID, "twice");
    for (int c = 0; c < 2; c++) {
        producer_init(&p);
        p.fields[c].name = "s";
        p.fields[c].format = "u";
        p.field_pointers[S] = p.field_pointers[c];
        p.schema.n_children = p.batch.n_children = 2;
        refuse(lake, &p, VEX_INVALID, c == 0 ? "'id'" : "'vector'");
    }
    producer_init(&p);
    p.fields[N].name = NULL;
    refuse(lake, &p, VEX_INVALID, "column 4");
    producer_init(&p);
    p.field_pointers[N] = NULL;
    refuse(lake, &p, VEX_INVALID, "column 4");
    producer_init(&p);
    p.schema.format = "l";
    refuse(lake, &p, VEX_INVALID, "struct");
    producer_init(&p);
    p.schema.n_children = 1000;
    p.schema.release = schema_release_shallow;
    refuse(lake, &p, VEX_INVALID, "1000");
    CHECK_OK(vex_lake_close(lake, &err));
}

TEST(wrong_shapes) {
    static const int32_t descending[] = {0, 3, 1, 6};
    static const int32_t negative[] = {-1, 1, 3, 6};
    static const int32_t beyond[] = {0, 2, 4, 1000};
    static const int32_t ragged[] = {0, 2, 3, 6};
    static const uint8_t second_null[] = {0x05};
    vex_lake *lake = lake_open();
    producer p;
    for (int c = 0; c < COLUMNS; c++) {
        char quoted[32];
        snprintf(quoted, sizeof quoted, "'%s'", names[c]);
        producer_init(&p);
        p.arrays[c].length = ROWS - 1;
        refuse(lake, &p, VEX_INVALID, quoted);
        producer_init(&p);
        p.arrays[c].length = -1;
        refuse(lake, &p, VEX_INVALID, quoted);
        producer_init(&p);
        p.arrays[c].offset = INT64_MAX;
        refuse(lake, &p, VEX_INVALID, quoted);
        producer_init(&p);
        p.arrays[c].n_buffers++;
        refuse(lake, &p, VEX_INVALID, quoted);
        producer_init(&p);
        p.arrays[c].buffers = NULL;
        refuse(lake, &p, VEX_INVALID, quoted);
        producer_init(&p);
        p.array_pointers[c] = NULL;
        refuse(lake, &p, VEX_INVALID, quoted);
        producer_init(&p);
        p.arrays[c].null_count = 1;
        p.buffers[c][0] = NULL;
        refuse(lake, &p, VEX_INVALID, quoted);
        if (c != VECTOR) {
            producer_init(&p);
            p.buffers[c][1] = NULL;
            refuse(lake, &p, VEX_INVALID, quoted);
        }
    }
    static const int strings[] = {ID, ATTRIBUTES, PAYLOAD, S};
    for (int i = 0; i < 4; i++) {
        producer_init(&p);
        p.buffers[strings[i]][1] = descending;
        refuse(lake, &p, VEX_INVALID, names[strings[i]]);
        producer_init(&p);
        p.buffers[strings[i]][1] = negative;
        refuse(lake, &p, VEX_INVALID, names[strings[i]]);
        producer_init(&p);
        p.buffers[strings[i]][2] = NULL;
        refuse(lake, &p, VEX_INVALID, names[strings[i]]);
    }
    static const int32_t *const lists[] = {descending, negative, beyond, ragged};
    for (int i = 0; i < 4; i++) {
        producer_init(&p);
        p.fields[VECTOR].format = "+l";
        p.arrays[VECTOR].n_buffers = 2;
        p.buffers[VECTOR][1] = lists[i];
        refuse(lake, &p, VEX_INVALID, i == 3 ? "1 dimensions" : "vector");
    }
    producer_init(&p);
    p.values.length = 5;
    refuse(lake, &p, VEX_INVALID, "vector");
    producer_init(&p);
    p.fields[VECTOR].format = "+w:1";
    refuse(lake, &p, VEX_INVALID, "1 dimensions");
    producer_init(&p);
    p.arrays[VECTOR].n_children = 0;
    refuse(lake, &p, VEX_INVALID, "vector");
    producer_init(&p);
    p.value_buffers[1] = NULL;
    refuse(lake, &p, VEX_INVALID, "vector");
    static const int never_null[] = {ID, VECTOR};
    for (int i = 0; i < 2; i++) {
        producer_init(&p);
        p.buffers[never_null[i]][0] = second_null;
        p.arrays[never_null[i]].null_count = -1;
        refuse(lake, &p, VEX_INVALID, "row 1");
    }
    producer_init(&p);
    p.value_buffers[0] = second_null;
    p.values.null_count = -1;
    refuse(lake, &p, VEX_INVALID, "value 1");
    producer_init(&p);
    p.batch_buffers[0] = second_null;
    p.batch.null_count = 1;
    refuse(lake, &p, VEX_INVALID, "row 1");
    producer_init(&p);
    p.batch.n_children = COLUMNS - 1;
    refuse(lake, &p, VEX_INVALID, "schema");
    producer_init(&p);
    p.batch.length = INT64_MAX;
    refuse(lake, &p, VEX_INVALID, "schema");
    CHECK_OK(vex_lake_close(lake, &err));
}

TEST(failing_streams) {
    vex_lake *lake = lake_open();
    producer p;
    producer_init(&p);
    p.schema_code = 5;
    p.error = "the schema is lost";
    refuse(lake, &p, VEX_INVALID, "the schema is lost");
    producer_init(&p);
    p.batches_left = 0;
    p.next_code = 5;
    refuse(lake, &p, VEX_INVALID, "stream of rows failed");
    /* Earlier batches stay; the count tells how many. */
    producer_init(&p);
    p.next_code = 5;
    uint64_t count = 0;
    vex_error err;
    CHECK(put(lake, "c", &p, &count, &err) == VEX_INVALID);
    CHECK_EQ(count, ROWS);
    CHECK_EQ(err.code, 5);
    CHECK_EQ(row_count(lake), ROWS);
    producer_init(&p);
    CHECK(put(lake, "nowhere", &p, &count, &err) == VEX_NOT_FOUND);
    CHECK(vex_put(lake, str("c"), NULL, &count, &err) == VEX_INVALID);
    CHECK_OK(vex_lake_close(lake, &err));
}

TEST_MAIN(RUN(layouts); RUN(offsets); RUN(several_batches_and_none); RUN(wrong_types);
          RUN(wrong_shapes); RUN(failing_streams))
