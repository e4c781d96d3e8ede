/* Graph files: writing the head, opening, checking.
 *
 * The head is a fixed header and five parts in a fixed order, each at the next multiple of 64:
 * origin, entries, the entries' codes, calibration, checksums of the node blocks. Its end is
 * rounded up to 4,096, where the nodes begin, so that a node's cache lines and the kernel's pages
 * fall together in a mapping. No offset and no size of a part stands in the file: all follow from
 * the counts in the header, and a file whose counts and size do not agree is refused. So a reader
 * has nothing to trust but counts that were compared with the bytes that are there.
 *
 * Neighbours in nodes are not looked at here: they are under the checksums of their blocks, and who
 * walks compares each with the number of rows (index/graph.h). */
#include "format/graph_file.h"

#include "format/index_internal.h"

enum {
    GRAPH_VERSION = 1,
    GRAPH_NODES_ALIGNMENT = 4096,
    GRAPH_DEGREE_STEP = 32,
    GRAPH_DEGREE_MAX = 1024,
    GRAPH_BLOCK_SIZE = 64 * 1024,
    GRAPH_BLOCKS_PER_TASK = 1024
};

/* Fixed header. Magic, version, both sizes, segment and CRC stand as in index files. */
enum {
    GRAPH_MAGIC = 0,      /* 8 bytes */
    GRAPH_FORMAT = 8,     /* version */
    GRAPH_HEAD_SIZE = 12, /* a multiple of 4,096 */
    GRAPH_FILE_SIZE = 16, /* u64 */
    GRAPH_SEGMENT = 24,   /* 36 bytes */
    GRAPH_CRC = 60,
    GRAPH_INDEX_CRC = 64,
    GRAPH_ELEMENT = 68, /* u8 */
    GRAPH_METRIC = 69,  /* u8 */
    GRAPH_DIMENSION = 72,
    GRAPH_PADDED = 76,
    GRAPH_DEGREE = 80,
    GRAPH_ROW_COUNT = 84,
    GRAPH_NODE_SIZE = 88,     /* u64 */
    GRAPH_ROTATION_SEED = 96, /* u64 */
    GRAPH_ROW_LENGTH = 104,   /* f32 */
    GRAPH_ENTRY_ERROR = 108,  /* f32 */
    GRAPH_PARAMETERS = 112,   /* f32 x 4 */
    GRAPH_ENTRY_COUNT = 128,
    GRAPH_ENTRIES_CODED = 132, /* u32: 1 if their codes follow */
    GRAPH_BLOCK = 136,         /* 65,536 */
    GRAPH_BLOCK_COUNT = 140,
    GRAPH_HEADER_SIZE = 192
};

static const char graph_magic[8] = {'V', 'E', 'X', 'G', 'R', 'A', 'P', 'H'};

/* Where the parts of a head are. */
typedef struct graph_plan {
    uint64_t origin, entries, entry_codes, calibration, block_crcs;
    uint64_t entry_codes_size;
    uint64_t head_size;
    uint64_t nodes_size;
    uint64_t block_count;
} graph_plan;

static uint64_t align_up(uint64_t size, uint64_t alignment) {
    return (size + alignment - 1) & ~(alignment - 1);
}

/* Vector, code blocks, neighbours (index/graph.h). */
static uint64_t node_size(uint32_t dimension, uint32_t padded, uint32_t degree) {
    return align_up((uint64_t)dimension * 4, VEXI_INDEX_ALIGNMENT) +
           vexi_index_list_size(padded, 1, degree) +
           align_up((uint64_t)degree * 4, VEXI_INDEX_ALIGNMENT);
}

/* Counts within their limits: no sum below passes 2^60. */
static bool counts_valid(const vexi_graph_file *file) {
    return file->dimension >= 1 && file->dimension <= VEX_DIMENSION_MAX &&
           file->padded == vexi_index_padded(file->dimension) &&
           file->degree >= GRAPH_DEGREE_STEP && file->degree <= GRAPH_DEGREE_MAX &&
           file->degree % GRAPH_DEGREE_STEP == 0 && file->row_count >= 1 &&
           file->entry_count >= 1 && file->entry_count <= file->row_count &&
           file->node_size == node_size(file->dimension, file->padded, file->degree);
}

static graph_plan plan_of(const vexi_graph_file *file, bool entries_coded) {
    graph_plan plan = {.nodes_size = file->row_count * file->node_size};
    plan.block_count = (plan.nodes_size + GRAPH_BLOCK_SIZE - 1) / GRAPH_BLOCK_SIZE;
    plan.entry_codes_size =
        entries_coded ? vexi_index_list_size(file->padded, 1, file->entry_count) : 0;
    plan.origin = GRAPH_HEADER_SIZE;
    plan.entries = align_up(plan.origin + (uint64_t)file->padded * 4, VEXI_INDEX_ALIGNMENT);
    plan.entry_codes =
        align_up(plan.entries + (uint64_t)file->entry_count * 4, VEXI_INDEX_ALIGNMENT);
    plan.calibration = align_up(plan.entry_codes + plan.entry_codes_size, VEXI_INDEX_ALIGNMENT);
    plan.block_crcs = plan.calibration + VEXI_INDEX_CALIBRATION_COUNT * (uint64_t)4;
    plan.head_size = align_up(plan.block_crcs + plan.block_count * 4, GRAPH_NODES_ALIGNMENT);
    return plan;
}

static size_t block_size(uint64_t nodes_size, uint64_t block) {
    uint64_t rest = nodes_size - block * GRAPH_BLOCK_SIZE;
    return rest < GRAPH_BLOCK_SIZE ? (size_t)rest : GRAPH_BLOCK_SIZE;
}

/* ---- Writing --------------------------------------------------------------------------------- */

typedef struct crc_job {
    const graph_plan *plan;
    const uint8_t *nodes;
    uint8_t *crcs;
} crc_job;

static void crc_run(void *argument, size_t part) {
    const crc_job *job = argument;
    uint64_t first = (uint64_t)part * GRAPH_BLOCKS_PER_TASK;
    uint64_t end = first + GRAPH_BLOCKS_PER_TASK;
    end = end < job->plan->block_count ? end : job->plan->block_count;
    for (uint64_t block = first; block < end; block++) {
        vexi_put_u32(job->crcs + block * 4, vexi_crc32c(0, job->nodes + block * GRAPH_BLOCK_SIZE,
                                                        block_size(job->plan->nodes_size, block)));
    }
}

vex_status vexi_graph_write_head(const vexi_env *env, const vexi_graph_file *input,
                                 vexi_buffer *head, vex_error *err) {
    VEX_ASSERT(head->size == 0 && counts_valid(input));
    graph_plan plan = plan_of(input, input->entry_codes != NULL);
    VEX_ASSERT(input->entry_codes == NULL || input->entry_codes_size == plan.entry_codes_size);
    if (plan.head_size > VEXI_INDEX_HEAD_SIZE_MAX) {
        return vexi_fail(err, VEX_LIMIT, "a graph of %llu bytes",
                         (unsigned long long)plan.nodes_size);
    }
    uint8_t *p = vexi_buffer_reserve(head, (size_t)plan.head_size);
    if (p == NULL) {
        return vexi_buffer_check(head, err);
    }
    memset(p, 0, (size_t)plan.head_size);
    memcpy(p + GRAPH_MAGIC, graph_magic, sizeof graph_magic);
    vexi_put_u32(p + GRAPH_FORMAT, GRAPH_VERSION);
    vexi_put_u32(p + GRAPH_HEAD_SIZE, (uint32_t)plan.head_size);
    vexi_put_u64(p + GRAPH_FILE_SIZE, plan.head_size + plan.nodes_size);
    memcpy(p + GRAPH_SEGMENT, input->segment, 36);
    vexi_put_u32(p + GRAPH_INDEX_CRC, input->index_head_crc);
    p[GRAPH_ELEMENT] = VEXI_INDEX_ELEMENT_FLOAT32;
    p[GRAPH_METRIC] = (uint8_t)input->metric;
    vexi_put_u32(p + GRAPH_DIMENSION, input->dimension);
    vexi_put_u32(p + GRAPH_PADDED, input->padded);
    vexi_put_u32(p + GRAPH_DEGREE, input->degree);
    vexi_put_u32(p + GRAPH_ROW_COUNT, input->row_count);
    vexi_put_u64(p + GRAPH_NODE_SIZE, input->node_size);
    vexi_put_u64(p + GRAPH_ROTATION_SEED, input->rotation_seed);
    vexi_put_f32(p + GRAPH_ROW_LENGTH, input->row_length);
    vexi_put_f32(p + GRAPH_ENTRY_ERROR, input->entry_error);
    for (size_t i = 0; i < 4; i++) {
        vexi_put_f32(p + GRAPH_PARAMETERS + i * 4, input->parameters[i]);
    }
    vexi_put_u32(p + GRAPH_ENTRY_COUNT, input->entry_count);
    vexi_put_u32(p + GRAPH_ENTRIES_CODED, input->entry_codes != NULL);
    vexi_put_u32(p + GRAPH_BLOCK, GRAPH_BLOCK_SIZE);
    vexi_put_u32(p + GRAPH_BLOCK_COUNT, (uint32_t)plan.block_count);
    memcpy(p + plan.origin, input->origin, (size_t)input->padded * 4);
    for (uint32_t i = 0; i < input->entry_count; i++) {
        VEX_ASSERT(input->entries[i] < input->row_count);
        vexi_put_u32(p + plan.entries + i * (size_t)4, input->entries[i]);
    }
    if (plan.entry_codes_size > 0) {
        memcpy(p + plan.entry_codes, input->entry_codes, (size_t)plan.entry_codes_size);
    }
    for (size_t i = 0; i < VEXI_INDEX_CALIBRATION_COUNT; i++) {
        vexi_put_u32(p + plan.calibration + i * 4, input->calibration[i]);
    }
    crc_job job = {.plan = &plan, .nodes = input->nodes, .crcs = p + plan.block_crcs};
    vexi_parallel(env,
                  (size_t)((plan.block_count + GRAPH_BLOCKS_PER_TASK - 1) / GRAPH_BLOCKS_PER_TASK),
                  crc_run, &job);
    vexi_put_u32(p + GRAPH_CRC, vexi_index_head_crc(p, (size_t)plan.head_size));
    head->size = (size_t)plan.head_size;
    return VEX_OK;
}

/* ---- Reading --------------------------------------------------------------------------------- */

_Static_assert((int)GRAPH_CRC == (int)VEXI_HEAD_CRC, "heads of both kinds have one checksum rule");

static vex_status corrupt(vex_error *err, const char *what) {
    return vexi_fail(err, VEX_CORRUPT, "graph file: %s", what);
}

static vex_status read_header(vexi_span bytes, uint32_t *head_size, vex_error *err) {
    const uint8_t *p = bytes.data;
    if (bytes.size < GRAPH_HEADER_SIZE) {
        return corrupt(err, "too short for a head");
    }
    if (memcmp(p + GRAPH_MAGIC, graph_magic, sizeof graph_magic) != 0) {
        return corrupt(err, "not a graph file");
    }
    uint32_t size = vexi_get_u32(p + GRAPH_HEAD_SIZE);
    if (size > bytes.size || size < GRAPH_HEADER_SIZE || size > VEXI_INDEX_HEAD_SIZE_MAX) {
        return corrupt(err, "the head has an impossible size");
    }
    if (vexi_get_u32(p + GRAPH_CRC) != vexi_index_head_crc(p, size)) {
        return corrupt(err, "the head does not match its checksum");
    }
    uint32_t version = vexi_get_u32(p + GRAPH_FORMAT);
    if (version > GRAPH_VERSION) {
        return vexi_fail(err, VEX_UNSUPPORTED,
                         "graph file of format version %u; this program knows %d", version,
                         GRAPH_VERSION);
    }
    if (version == 0 || vexi_get_u64(p + GRAPH_FILE_SIZE) != bytes.size) {
        return corrupt(err, "the file has another size than its head tells");
    }
    if (p[GRAPH_ELEMENT] != VEXI_INDEX_ELEMENT_FLOAT32) {
        return vexi_fail(err, VEX_UNSUPPORTED, "graph file over vectors of element type %u",
                         p[GRAPH_ELEMENT]);
    }
    if (p[GRAPH_METRIC] > VEX_METRIC_IP) {
        return vexi_fail(err, VEX_UNSUPPORTED, "graph file with the unknown metric %u",
                         p[GRAPH_METRIC]);
    }
    *head_size = size;
    return VEX_OK;
}

/* Numbers and floats go out as they lie in the file: see index_write.c. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "parts are used in place");

vex_status vexi_graph_open(vexi_span bytes, vexi_graph_file *out, vex_error *err) {
    *out = (vexi_graph_file){.segment = ""};
    VEX_ASSERT((uintptr_t)bytes.data % VEXI_INDEX_ALIGNMENT == 0);
    uint32_t head_size;
    VEX_TRY(read_header(bytes, &head_size, err));
    const uint8_t *p = bytes.data;
    vexi_graph_file file = {
        .index_head_crc = vexi_get_u32(p + GRAPH_INDEX_CRC),
        .metric = (vex_metric)p[GRAPH_METRIC],
        .dimension = vexi_get_u32(p + GRAPH_DIMENSION),
        .padded = vexi_get_u32(p + GRAPH_PADDED),
        .degree = vexi_get_u32(p + GRAPH_DEGREE),
        .row_count = vexi_get_u32(p + GRAPH_ROW_COUNT),
        .node_size = vexi_get_u64(p + GRAPH_NODE_SIZE),
        .rotation_seed = vexi_get_u64(p + GRAPH_ROTATION_SEED),
        .row_length = vexi_get_f32(p + GRAPH_ROW_LENGTH),
        .entry_error = vexi_get_f32(p + GRAPH_ENTRY_ERROR),
        .entry_count = vexi_get_u32(p + GRAPH_ENTRY_COUNT),
    };
    memcpy(file.segment, p + GRAPH_SEGMENT, 36);
    for (size_t i = 0; i < 4; i++) {
        file.parameters[i] = vexi_get_f32(p + GRAPH_PARAMETERS + i * 4);
    }
    uint32_t coded = vexi_get_u32(p + GRAPH_ENTRIES_CODED);
    if (!counts_valid(&file) || coded > 1) {
        return corrupt(err, "the head contradicts itself");
    }
    graph_plan plan = plan_of(&file, coded != 0);
    if (plan.head_size != head_size || plan.nodes_size != bytes.size - head_size ||
        vexi_get_u32(p + GRAPH_BLOCK) != GRAPH_BLOCK_SIZE ||
        vexi_get_u32(p + GRAPH_BLOCK_COUNT) != plan.block_count) {
        return corrupt(err, "its parts have other sizes than the head tells");
    }
    file.origin = (const float *)(const void *)(p + plan.origin);
    file.entries = (const uint32_t *)(const void *)(p + plan.entries);
    for (uint32_t i = 0; i < file.entry_count; i++) {
        if (file.entries[i] >= file.row_count) {
            return corrupt(err, "an entry is behind the last row");
        }
    }
    file.entry_codes = coded != 0 ? p + plan.entry_codes : NULL;
    file.entry_codes_size = plan.entry_codes_size;
    for (size_t i = 0; i < VEXI_INDEX_CALIBRATION_COUNT; i++) {
        file.calibration[i] = vexi_get_u32(p + plan.calibration + i * 4);
    }
    file.block_crcs = p + plan.block_crcs;
    file.block_count = plan.block_count;
    file.nodes = p + head_size;
    *out = file;
    return VEX_OK;
}

vex_status vexi_graph_check(const vexi_graph_file *file, uint64_t first, uint64_t count,
                            vex_error *err) {
    if (first > file->block_count || count > file->block_count - first) {
        return corrupt(err, "blocks behind the end of the file");
    }
    uint64_t nodes_size = file->row_count * file->node_size;
    for (uint64_t block = first; block < first + count; block++) {
        if (vexi_crc32c(0, file->nodes + block * GRAPH_BLOCK_SIZE, block_size(nodes_size, block)) !=
            vexi_get_u32(file->block_crcs + block * 4)) {
            return vexi_fail(err, VEX_CORRUPT,
                             "graph file: block %llu of the nodes does not match its checksum",
                             (unsigned long long)block);
        }
    }
    return VEX_OK;
}
