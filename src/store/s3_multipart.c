/* Upload in parts: for objects too large for one request.
 *
 * Parts travel side by side in batches, each with its CRC-32C, and are tried again alone; the
 * object appears whole when the upload is completed, and not before. On any failure the upload is
 * aborted, so that its parts do not stay and cost.
 *
 * A completion whose answer was lost. Repeated, it says that there is no such upload, which is also
 * what an abort by somebody else would give. So the upload carries an id of its own as the object's
 * metadata, and the object that is there is asked for it.
 *
 * Never with If-None-Match: SeaweedFS lets several completions win. */
#include <stdio.h>

#include "store/s3_internal.h"

enum {
    PART_COUNT_MAX = 10000, /* S3's limit */
    BATCH_SIZE = 8,
    COMPLETE_SIZE_MAX = 4 << 20,
    UPLOAD_ID_SIZE_MAX = 1024
};

/* What the calls of one upload share. */
typedef struct upload {
    vexi_s3_client *client;
    const vexi_env *env;
    const char *name;
    const char *path;
    char id[UPLOAD_ID_SIZE_MAX];
    char put_id[VEXI_S3_PUT_ID_SIZE + 1];
    const vexi_span *parts;
    size_t count;
    size_t index; /* of the part that the next piece begins in */
    size_t offset;
    uint64_t size;
    vexi_buffer complete; /* the body of the completion, so far */
} upload;

/* One part under way. */
typedef struct piece {
    vexi_span *spans; /* in the upload's order */
    size_t span_count;
    size_t span_capacity;
    char crc[VEXI_S3_CRC_SIZE];
    vexi_buffer query;
} piece;

static vexi_s3_call upload_call(const upload *u, const char *method, const char *query) {
    return (vexi_s3_call){.kind = VEXI_S3_MULTIPART,
                          .what = u->name,
                          .method = method,
                          .path = u->path,
                          .query = query,
                          .body_limit = VEXI_S3_ERROR_BODY_SIZE_MAX};
}

static vex_status begin_upload(upload *u, vex_error *err) {
    vexi_s3_call call = upload_call(u, "POST", "uploads=");
    call.has_body = true; /* of no bytes */
    vexi_s3_call_header(&call, "x-amz-checksum-algorithm", "CRC32C");
    vexi_s3_call_header(&call, "x-amz-meta-vexlake-put", u->put_id);
    vex_status status = vexi_s3_run(u->client, &call, 1, err);
    if (status == VEX_OK) {
        status = vexi_s3_parse_upload_id(vexi_span_of(call.answer.body, call.answer.body_size),
                                         u->id, sizeof u->id, err);
        if (status != VEX_OK) {
            status = vexi_prefix(err, status, "%s", u->name);
        }
    }
    vexi_s3_call_deinit(u->client, &call);
    return status;
}

/* The next `size` bytes of the object as spans of the piece. */
static vex_status cut_piece(upload *u, size_t size, piece *p, vex_error *err) {
    p->span_count = 0;
    while (size > 0) {
        VEX_ASSERT(u->index < u->count);
        size_t left = u->parts[u->index].size - u->offset;
        size_t taken = left < size ? left : size;
        if (taken > 0) {
            void *memory = p->spans;
            VEX_TRY(vexi_grow(u->env, &memory, &p->span_capacity, p->span_count, p->span_count + 1,
                              sizeof *p->spans, err));
            p->spans = memory;
            p->spans[p->span_count++] = vexi_span_of(u->parts[u->index].data + u->offset, taken);
        }
        size -= taken;
        u->offset += taken;
        if (u->offset == u->parts[u->index].size) {
            u->index++;
            u->offset = 0;
        }
    }
    vexi_s3_crc_text(p->spans, p->span_count, p->crc);
    return VEX_OK;
}

/* Send the parts first .. first + count - 1 (from 1), of part_size bytes but the last. */
static vex_status send_batch(upload *u, uint32_t first, uint32_t count, size_t part_size,
                             piece *pieces, vex_error *err) {
    vexi_s3_call calls[BATCH_SIZE];
    VEX_ASSERT(count <= BATCH_SIZE);
    for (uint32_t i = 0; i < count; i++) {
        piece *p = &pieces[i];
        uint64_t start = (uint64_t)(first + i - 1) * part_size;
        uint64_t left = u->size - start;
        size_t size = left < part_size ? (size_t)left : part_size;
        VEX_TRY(cut_piece(u, size, p, err));
        char number[16];
        snprintf(number, sizeof number, "%u", first + i);
        vexi_buffer_clear(&p->query);
        vexi_s3_query_add(&p->query, "partNumber", number);
        vexi_s3_query_add(&p->query, "uploadId", u->id);
        vexi_buffer_u8(&p->query, 0);
        VEX_TRY(vexi_buffer_check(&p->query, err));
        calls[i] = upload_call(u, "PUT", (const char *)p->query.data);
        calls[i].has_body = true;
        calls[i].parts = p->spans;
        calls[i].part_count = p->span_count;
        calls[i].body_size = size;
        vexi_s3_call_header(&calls[i], "x-amz-checksum-crc32c", p->crc);
    }
    vex_status status = vexi_s3_run(u->client, calls, count, err);
    for (uint32_t i = 0; i < count; i++) {
        if (status == VEX_OK && calls[i].answer.etag[0] == '\0') {
            status =
                vexi_fail(err, VEX_IO, "%s: the server gave part %u no ETag", u->name, first + i);
        }
        vexi_buffer_text(&u->complete, "<Part><ChecksumCRC32C>");
        vexi_buffer_text(&u->complete, pieces[i].crc);
        vexi_buffer_text(&u->complete, "</ChecksumCRC32C><ETag>");
        vexi_s3_xml_escape(&u->complete, calls[i].answer.etag);
        vexi_buffer_format(&u->complete, "</ETag><PartNumber>%u</PartNumber></Part>", first + i);
        vexi_s3_call_deinit(u->client, &calls[i]);
    }
    return status;
}

static vex_status send_parts(upload *u, size_t part_size, vex_error *err) {
    uint64_t part_count = (u->size - 1) / part_size + 1;
    VEX_ASSERT(part_count <= PART_COUNT_MAX);
    piece pieces[BATCH_SIZE] = {{0}};
    for (size_t i = 0; i < BATCH_SIZE; i++) {
        vexi_buffer_init(&pieces[i].query, u->env, VEXI_S3_QUERY_SIZE_MAX);
    }
    vex_status status = VEX_OK;
    for (uint32_t first = 1; status == VEX_OK && first <= part_count; first += BATCH_SIZE) {
        uint64_t left = part_count - first + 1;
        uint32_t count = left < BATCH_SIZE ? (uint32_t)left : BATCH_SIZE;
        status = send_batch(u, first, count, part_size, pieces, err);
    }
    for (size_t i = 0; i < BATCH_SIZE; i++) {
        vexi_buffer_deinit(&pieces[i].query);
        vexi_free(u->env, pieces[i].spans);
    }
    return status;
}

/* Whether the object that is there came by this upload. */
static bool is_there(const upload *u) {
    vexi_s3_call call = {.kind = VEXI_S3_HEAD,
                         .what = u->name,
                         .method = "HEAD",
                         .path = u->path,
                         .query = "",
                         .body_limit = VEXI_S3_ERROR_BODY_SIZE_MAX};
    vex_status status = vexi_s3_run(u->client, &call, 1, NULL);
    bool is_ours = status == VEX_OK && call.answer.total_size == u->size &&
                   strcmp(call.answer.put_id, u->put_id) == 0;
    vexi_s3_call_deinit(u->client, &call);
    return is_ours;
}

static vex_status complete_upload(upload *u, const char *query, vex_error *err) {
    vexi_buffer_text(&u->complete, "</CompleteMultipartUpload>");
    VEX_TRY(vexi_buffer_check(&u->complete, err));
    vexi_span body = vexi_span_of(u->complete.data, u->complete.size);
    vexi_s3_call call = upload_call(u, "POST", query);
    call.has_body = true;
    call.parts = &body;
    call.part_count = 1;
    call.body_size = body.size;
    vex_status status = vexi_s3_run(u->client, &call, 1, err);
    vexi_s3_answer_error error;
    if (status == VEX_OK &&
        vexi_s3_parse_error(vexi_span_of(call.answer.body, call.answer.body_size), &error)) {
        /* S3 answers 200 before it knows, to keep the connection alive. */
        status = vexi_fail(err, VEXI_S3_UNAVAILABLE,
                           "store unavailable: %s: the upload was not completed: %s %s", u->name,
                           error.code, error.message);
    }
    if (status != VEX_OK && (call.is_doubtful || call.answer.http_status == 200) && is_there(u)) {
        status = VEX_OK;
    }
    vexi_s3_call_deinit(u->client, &call);
    return status;
}

static void abort_upload(upload *u, const char *query) {
    vexi_s3_call call = upload_call(u, "DELETE", query);
    vex_error err;
    if (vexi_s3_run(u->client, &call, 1, &err) != VEX_OK && err.status != VEX_NOT_FOUND) {
        vexi_log(u->env, 2,
                 "parts of an upload of %s stay behind until the bucket's own rules remove them: "
                 "%s",
                 u->name, err.message);
    }
    vexi_s3_call_deinit(u->client, &call);
}

vex_status vexi_s3_multipart_put(vexi_s3_client *client, const char *name, const char *path,
                                 const vexi_span *parts, size_t count, uint64_t size,
                                 const vexi_env *env, vex_error *err) {
    VEX_ASSERT(size > 0);
    size_t part_size = vexi_s3_client_settings(client)->part_size;
    while ((size - 1) / part_size + 1 > PART_COUNT_MAX) {
        if (__builtin_mul_overflow(part_size, 2, &part_size)) {
            return vexi_fail(err, VEX_LIMIT, "%s is too large for an object", name);
        }
    }
    upload u = {.client = client,
                .env = env,
                .name = name,
                .path = path,
                .parts = parts,
                .count = count,
                .size = size};
    vexi_random_uuid(env, u.put_id);
    VEX_TRY(begin_upload(&u, err));
    vexi_buffer query;
    vexi_buffer_init(&query, env, VEXI_S3_QUERY_SIZE_MAX);
    vexi_buffer_init(&u.complete, env, COMPLETE_SIZE_MAX);
    vexi_s3_query_add(&query, "uploadId", u.id);
    vexi_buffer_u8(&query, 0);
    vexi_buffer_text(&u.complete, "<CompleteMultipartUpload "
                                  "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    vex_status status = vexi_buffer_check(&query, err);
    if (status == VEX_OK) {
        status = send_parts(&u, part_size, err);
        if (status == VEX_OK) {
            status = complete_upload(&u, (const char *)query.data, err);
        }
        if (status != VEX_OK) {
            abort_upload(&u, (const char *)query.data);
        }
    }
    vexi_buffer_deinit(&query);
    vexi_buffer_deinit(&u.complete);
    return status;
}
