/* Blocks of an index file that is not in memory: fetched when they are first needed.
 *
 * What is asked for is rounded to blocks of 64 KiB, which have a checksum each; blocks that follow
 * each other become one piece, and the pieces of one call travel together. They arrive in an arena
 * and are copied to their place once their checksum matched, so nobody sees a byte that was not
 * checked. Two threads may fetch one block at the same time: the first to claim it copies, the
 * other waits for the end of that. A block that does not match is fetched once more, since a
 * network may have done it; then it is damage. */
#include <sched.h>

#include "base/bitmap.h"
#include "format/index_internal.h"

enum {
    FETCH_TRY_MAX = 2,
    SLOTS_AHEAD = 64 /* of an id: nearly all searches end within fewer */
};

static size_t block_size(const vexi_index_file *file, size_t block) {
    uint64_t rest = file->bytes.size - file->bulk_offset - (uint64_t)block * VEXI_INDEX_BLOCK_SIZE;
    return rest < VEXI_INDEX_BLOCK_SIZE ? (size_t)rest : VEXI_INDEX_BLOCK_SIZE;
}

static uint8_t state_of(const vexi_index_file *file, size_t block) {
    return __atomic_load_n(&file->block_checked[block], __ATOMIC_ACQUIRE);
}

/* Put a checked block where it belongs, unless somebody did or does. */
static void block_place(vexi_index_file *file, size_t block, const uint8_t *data) {
    uint8_t unknown = VEXI_INDEX_BLOCK_UNKNOWN;
    if (!__atomic_compare_exchange_n(&file->block_checked[block], &unknown,
                                     VEXI_INDEX_BLOCK_COPYING, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        while (state_of(file, block) != VEXI_INDEX_BLOCK_CHECKED) {
            sched_yield();
        }
        return;
    }
    /* Where blocks are fetched the bytes are ours to fill: see `fetch`. */
    uint8_t *target = (uint8_t *)(uintptr_t)file->bytes.data + file->bulk_offset +
                      block * (size_t)VEXI_INDEX_BLOCK_SIZE;
    memcpy(target, data, block_size(file, block));
    __atomic_store_n(&file->block_checked[block], VEXI_INDEX_BLOCK_CHECKED, __ATOMIC_RELEASE);
}

/* Place the blocks of a fetched piece that match their checksums. */
static vex_status piece_place(vexi_index_file *file, const vexi_piece *piece, vex_error *err) {
    vex_status status = VEX_OK;
    size_t block = (size_t)((piece->offset - file->bulk_offset) / VEXI_INDEX_BLOCK_SIZE);
    for (size_t at = 0; at < piece->size; block++) {
        size_t size = block_size(file, block);
        if (vexi_crc32c(0, piece->data + at, size) == vexi_get_u32(file->block_crcs + block * 4)) {
            block_place(file, block, piece->data + at);
        } else if (status == VEX_OK) {
            uint64_t offset = piece->offset + at;
            status = vexi_fail(err, VEX_CORRUPT,
                               "index file: bytes %llu to %llu do not match their checksum",
                               (unsigned long long)offset, (unsigned long long)(offset + size - 1));
        }
        at += size;
    }
    return status;
}

/* Pieces for the marked blocks, those side by side as one. */
static size_t pieces_of(const vexi_index_file *file, const uint64_t *marks, vexi_piece *pieces) {
    size_t count = 0;
    for (size_t block = 0; block < file->block_count; block++) {
        if (!vexi_bitmap_get(marks, block) || state_of(file, block) == VEXI_INDEX_BLOCK_CHECKED) {
            continue;
        }
        uint64_t offset = file->bulk_offset + (uint64_t)block * VEXI_INDEX_BLOCK_SIZE;
        size_t size = block_size(file, block);
        if (count > 0 && pieces[count - 1].offset + pieces[count - 1].size == offset) {
            pieces[count - 1].size += size;
        } else {
            pieces[count++] = (vexi_piece){.offset = offset, .size = size};
        }
    }
    return count;
}

/* Mark the blocks that are missing of a range; the number of marks that are new. */
static size_t range_mark(const vexi_index_file *file, const vexi_piece *range, uint64_t *marks) {
    uint64_t end = range->offset + range->size;
    uint64_t first = range->offset < file->bulk_offset ? file->bulk_offset : range->offset;
    if (first >= end) {
        return 0;
    }
    size_t count = 0;
    size_t block = (size_t)((first - file->bulk_offset) / VEXI_INDEX_BLOCK_SIZE);
    size_t last = (size_t)((end - 1 - file->bulk_offset) / VEXI_INDEX_BLOCK_SIZE);
    for (; block <= last; block++) {
        if (state_of(file, block) != VEXI_INDEX_BLOCK_CHECKED && !vexi_bitmap_get(marks, block)) {
            marks[block / 64] |= (uint64_t)1 << (block % 64);
            count++;
        }
    }
    return count;
}

/* Ranges of the ids whose offsets are there; those that make no sense are left to whoever reads the
 * id. */
static size_t id_ranges(const vexi_index_file *file, const uint64_t *rows, size_t count,
                        vexi_piece *out) {
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *p = file->bytes.data + file->id_offsets_offset + rows[i] * 4;
        uint32_t first = vexi_get_u32(p);
        uint32_t end = vexi_get_u32(p + 4);
        if (first < end && end <= file->ids_size) {
            out[used++] =
                (vexi_piece){.offset = file->ids_offset + first, .size = (size_t)(end - first)};
        }
    }
    return used;
}

vex_status vexi_index_missing(const vexi_index_file *file, const vexi_piece *ranges, size_t count,
                              vexi_arena *arena, vexi_piece **pieces, size_t *piece_count,
                              vex_error *err) {
    *pieces = NULL;
    *piece_count = 0;
    if (file->fetch == NULL) {
        return VEX_OK;
    }
    size_t mark_count = 0;
    size_t words = vexi_bitmap_words(file->block_count) + 1;
    uint64_t *marks = vexi_arena_calloc(arena, words, sizeof *marks);
    if (marks == NULL) {
        return vexi_no_memory(err, words * sizeof *marks);
    }
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].offset > file->bytes.size ||
            ranges[i].size > file->bytes.size - ranges[i].offset) {
            return vexi_fail(err, VEX_CORRUPT, "index file: bytes behind the end of the file");
        }
        mark_count += range_mark(file, &ranges[i], marks);
    }
    if (mark_count == 0) {
        return VEX_OK;
    }
    *pieces = vexi_arena_array(arena, mark_count, sizeof **pieces);
    if (*pieces == NULL) {
        return vexi_no_memory(err, mark_count * sizeof **pieces);
    }
    *piece_count = pieces_of(file, marks, *pieces);
    return VEX_OK;
}

vex_status vexi_index_place(vexi_index_file *file, const vexi_piece *pieces, size_t count,
                            vex_error *err) {
    vex_status damage = VEX_OK;
    for (size_t i = 0; i < count; i++) {
        vex_status placed = piece_place(file, &pieces[i], damage == VEX_OK ? err : NULL);
        damage = damage == VEX_OK ? placed : damage;
    }
    return damage;
}

vex_status vexi_index_need(vexi_index_file *file, const vexi_piece *ranges, size_t count,
                           void *cost, vex_error *err) {
    if (file->fetch == NULL) {
        return VEX_OK;
    }
    vexi_arena arena;
    vexi_arena_init(&arena, file->env);
    vex_status status = VEX_OK;
    for (int try = 0; try < FETCH_TRY_MAX; try++) {
        vexi_piece *pieces;
        size_t piece_count;
        status = vexi_index_missing(file, ranges, count, &arena, &pieces, &piece_count, err);
        if (status != VEX_OK || piece_count == 0) {
            break;
        }
        VEX_TRY_GOTO(status, done,
                     file->fetch(file->fetch_context, pieces, piece_count, &arena, cost, err));
        status = vexi_index_place(file, pieces, piece_count, err);
        if (status != VEX_OK && file->distrust != NULL) {
            file->distrust(file->fetch_context);
        }
    }
done:
    vexi_arena_deinit(&arena);
    return status;
}

size_t vexi_index_row_ranges(const vexi_index_file *file, const uint64_t *rows, size_t count,
                             bool ids, vexi_piece *out) {
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t at = file->id_offsets_offset + rows[i] * 4;
        out[used++] = (vexi_piece){.offset = file->crcs_offset + rows[i] * 4, .size = 4};
        if (!ids) {
            continue;
        }
        if (!vexi_index_checked(file, at, 8)) {
            out[used++] = (vexi_piece){.offset = at, .size = 8};
        } else {
            used += id_ranges(file, &rows[i], 1, out + used);
        }
    }
    return used;
}

vex_status vexi_index_need_rows(vexi_index_file *file, const uint64_t *rows, size_t count, bool ids,
                                void *cost, vex_error *err) {
    if (file->fetch == NULL || count == 0) {
        return VEX_OK;
    }
    vexi_piece *ranges = vexi_alloc_array(file->env, 2 * count, sizeof *ranges);
    if (ranges == NULL) {
        return vexi_no_memory(err, 2 * count * sizeof *ranges);
    }
    for (size_t i = 0; i < count; i++) {
        ranges[2 * i] = (vexi_piece){.offset = file->crcs_offset + rows[i] * 4, .size = 4};
        ranges[2 * i + 1] =
            (vexi_piece){.offset = file->id_offsets_offset + rows[i] * 4, .size = 8};
    }
    vex_status status = vexi_index_need(file, ranges, 2 * count, cost, err);
    if (status == VEX_OK && ids) {
        status = vexi_index_need(file, ranges, id_ranges(file, rows, count, ranges), cost, err);
    }
    vexi_free(file->env, ranges);
    return status;
}

size_t vexi_index_slot_ranges(const vexi_index_file *file, uint64_t hash, vexi_piece out[2]) {
    uint64_t first = vexi_index_slot(hash, file->hash_slot_count);
    uint64_t count = file->hash_probe_max < SLOTS_AHEAD ? file->hash_probe_max : SLOTS_AHEAD;
    uint64_t left = file->hash_slot_count - first;
    uint64_t here = count < left ? count : left; /* they go on at the first slot */
    size_t n = 0;
    if (here > 0) {
        out[n++] = (vexi_piece){.offset = file->hash_offset + first * VEXI_HASH_SLOT_SIZE,
                                .size = (size_t)here * VEXI_HASH_SLOT_SIZE};
    }
    if (count > here) {
        out[n++] = (vexi_piece){.offset = file->hash_offset,
                                .size = (size_t)(count - here) * VEXI_HASH_SLOT_SIZE};
    }
    return n;
}

size_t vexi_index_slot_rows(const vexi_index_file *file, uint64_t hash, uint64_t *rows,
                            size_t most) {
    uint64_t slot = vexi_index_slot(hash, file->hash_slot_count);
    size_t found = 0;
    for (uint32_t probe = 0; probe < file->hash_probe_max && found < most; probe++) {
        uint64_t at = file->hash_offset + slot * VEXI_HASH_SLOT_SIZE;
        if (!vexi_index_checked(file, at, VEXI_HASH_SLOT_SIZE)) {
            break;
        }
        uint32_t number = vexi_get_u32(file->bytes.data + at + 4);
        if (number == 0) {
            break;
        }
        if (vexi_get_u32(file->bytes.data + at) == vexi_index_tag(hash) &&
            number <= file->row_count) {
            rows[found++] = number - 1;
        }
        slot = slot + 1 == file->hash_slot_count ? 0 : slot + 1;
    }
    return found;
}
