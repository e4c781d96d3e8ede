/* One HTTP exchange by libcurl: the request as signed, the answer into its sink.
 *
 * A ranged answer is taken as the server gave it: 206 from where its Content-Range begins, which
 * must be where we asked; 200 (the server ignored the range) from the object's first byte, of which
 * what lies before the wanted bytes is dropped and the connection is given up behind them. What was
 * wanted is scattered into the caller's targets as it arrives. The second transfer of a hedged
 * request has memory of its own, since both may be receiving.
 *
 * Answers that are no success go to a small bounded body, for their <Error>.
 *
 * All runs on the client's network thread. */
#include <curl/curl.h>
#include <stdio.h>
#include <strings.h>

#include "store/s3_internal.h"

static const char user_agent[] = "vexlake/0.1";

static bool is_success(int http_status) {
    return http_status >= 200 && http_status < 300;
}

static void note_progress(vexi_s3_transfer *t) {
    t->progress_ns = vexi_monotonic_ns(t->env);
}

/* ---- The answer's head ----------------------------------------------------------------------- */

/* The header's value if `line` is that header, as a NUL-terminated text without spaces around. */
static bool header_is(const char *line, size_t size, const char *name, char *value,
                      size_t value_size) {
    size_t name_size = strlen(name);
    if (size <= name_size || line[name_size] != ':' || strncasecmp(line, name, name_size) != 0) {
        return false;
    }
    const char *from = line + name_size + 1;
    const char *to = line + size;
    while (from < to && (*from == ' ' || *from == '\t')) {
        from++;
    }
    while (to > from && (to[-1] == '\n' || to[-1] == '\r' || to[-1] == ' ')) {
        to--;
    }
    size_t length = (size_t)(to - from);
    if (length >= value_size) {
        length = 0; /* none of the headers that matter is that long */
    }
    for (size_t i = 0; i < length; i++) {
        value[i] = from[i] >= 0x20 && from[i] < 0x7f ? from[i] : ' ';
    }
    value[length] = '\0';
    return true;
}

/* A decimal number at *text, which moves behind it; false if there is none. */
static bool read_number(const char **text, uint64_t *out) {
    uint64_t value = 0;
    const char *at = *text;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value)) {
            return false;
        }
    }
    if (at == *text) {
        return false;
    }
    *text = at;
    *out = value;
    return true;
}

/* "bytes 5-9/100" or, for a range outside, "bytes * /100". */
static void take_content_range(vexi_s3_transfer *t, const char *value) {
    uint64_t first = 0, last = 0, total = 0;
    if (strncasecmp(value, "bytes ", 6) != 0) {
        return;
    }
    value += 6;
    if (*value == '*') {
        value++;
    } else {
        if (!read_number(&value, &first) || *value++ != '-' || !read_number(&value, &last)) {
            t->is_wrong_range = true;
            return;
        }
        t->position = first;
        t->is_wrong_range = first != t->call->start || last < first || last >= t->call->end;
    }
    if (*value++ == '/' && read_number(&value, &total)) {
        t->answer.total_size = total;
    }
}

static size_t on_header(char *line, size_t one, size_t size, void *context) {
    vexi_s3_transfer *t = context;
    note_progress(t);
    (void)one;
    char value[256];
    if (size >= 5 && strncasecmp(line, "HTTP/", 5) == 0) {
        /* A new head: what an interim answer said does not count. */
        t->answer.etag[0] = '\0';
        t->answer.put_id[0] = '\0';
        t->answer.crc[0] = '\0';
        t->answer.total_size = UINT64_MAX;
        t->content_size = UINT64_MAX;
        t->position = 0;
        t->is_wrong_range = false;
    } else if (header_is(line, size, "etag", value, sizeof value)) {
        snprintf(t->answer.etag, sizeof t->answer.etag, "%.95s", value);
    } else if (header_is(line, size, "content-range", value, sizeof value)) {
        take_content_range(t, value);
    } else if (header_is(line, size, "content-length", value, sizeof value)) {
        const char *text = value;
        uint64_t number = 0;
        if (read_number(&text, &number)) {
            t->content_size = number;
        }
    } else if (header_is(line, size, "x-amz-meta-vexlake-put", value, sizeof value)) {
        snprintf(t->answer.put_id, sizeof t->answer.put_id, "%.36s", value);
    } else if (header_is(line, size, "x-amz-checksum-crc32c", value, sizeof value)) {
        snprintf(t->answer.crc, sizeof t->answer.crc, "%.8s", value);
    } else if (header_is(line, size, "x-amz-bucket-region", value, sizeof value)) {
        snprintf(t->answer.error.region, sizeof t->answer.error.region, "%.63s", value);
    } else if (header_is(line, size, "date", value, sizeof value)) {
        time_t when = curl_getdate(value, NULL);
        t->server_time = when < 0 ? 0 : (int64_t)when;
    }
    t->saw_header = true;
    return size;
}

/* ---- The answer's body ----------------------------------------------------------------------- */

/* Append to the answer's own body. */
static bool keep_body(vexi_s3_transfer *t, const uint8_t *data, size_t size, size_t limit) {
    vexi_s3_answer *answer = &t->answer;
    if (size > limit - answer->body_size) {
        t->is_too_large = true;
        return false;
    }
    size_t wanted = answer->body_size + size;
    if (answer->body_size == 0 && t->content_size != UINT64_MAX && t->content_size > wanted &&
        t->content_size <= limit) {
        wanted = (size_t)t->content_size;
    }
    void *memory = answer->body;
    if (vexi_grow(t->env, &memory, &answer->body_capacity, answer->body_size, wanted, 1, NULL) !=
        VEX_OK) {
        t->no_memory = true;
        return false;
    }
    answer->body = memory;
    memcpy(answer->body + answer->body_size, data, size);
    answer->body_size += size;
    return true;
}

static size_t on_body(char *data, size_t one, size_t size, void *context) {
    vexi_s3_transfer *t = context;
    vexi_s3_call *call = t->call;
    note_progress(t);
    (void)one;
    t->received_size += size;
    long code = 0;
    (void)curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &code);
    const uint8_t *bytes = (const uint8_t *)data;
    if (!is_success((int)code)) {
        /* An error page may be long; its head says what matters. */
        size_t room = VEXI_S3_ERROR_BODY_SIZE_MAX - t->answer.body_size;
        size_t kept = size < room ? size : room;
        return kept == 0 || keep_body(t, bytes, kept, VEXI_S3_ERROR_BODY_SIZE_MAX) ? size : 0;
    }
    if (call->sink == VEXI_S3_SINK_BODY) {
        size_t room = call->body_limit - t->answer.body_size;
        if (call->is_ranged && size > room) { /* the range was ignored: its bytes are here */
            bool kept = room == 0 || keep_body(t, bytes, room, call->body_limit);
            t->is_complete = kept;
            return 0;
        }
        return keep_body(t, bytes, size, call->body_limit) ? size : 0;
    }
    if (t->is_wrong_range) {
        return 0;
    }
    /* The part of these bytes that lies in [start, end). */
    uint64_t from = t->position;
    uint64_t to = t->position + size;
    t->position = to;
    uint64_t wanted_from = from > call->start ? from : call->start;
    uint64_t wanted_to = to < call->end ? to : call->end;
    if (wanted_from < wanted_to) {
        const uint8_t *wanted = bytes + (wanted_from - from);
        size_t wanted_size = (size_t)(wanted_to - wanted_from);
        if (t->hedge_data != NULL) {
            memcpy(t->hedge_data + (wanted_from - call->start), wanted, wanted_size);
        } else {
            vexi_s3_scatter(call->ranges, call->range_count, wanted_from, wanted, wanted_size);
        }
    }
    if (to > call->end) {
        t->is_complete = true; /* the rest of an object that was asked for in part */
        return 0;
    }
    return size;
}

/* ---- The request ----------------------------------------------------------------------------- */

static size_t on_read(char *out, size_t one, size_t room, void *context) {
    vexi_s3_transfer *t = context;
    const vexi_s3_call *call = t->call;
    note_progress(t);
    (void)one;
    size_t made = 0;
    while (made < room && t->part_index < call->part_count) {
        const vexi_span *part = &call->parts[t->part_index];
        size_t size = part->size - t->part_offset;
        if (size == 0) {
            t->part_index++;
            t->part_offset = 0;
            continue;
        }
        size = size < room - made ? size : room - made;
        memcpy(out + made, part->data + t->part_offset, size);
        t->part_offset += size;
        made += size;
    }
    t->sent_size += made;
    return made;
}

/* libcurl goes back to the start when a kept connection turned out to be dead. */
static int on_seek(void *context, curl_off_t offset, int origin) {
    vexi_s3_transfer *t = context;
    if (offset != 0 || origin != SEEK_SET) {
        return CURL_SEEKFUNC_CANTSEEK;
    }
    t->part_index = 0;
    t->part_offset = 0;
    t->call->is_doubtful = true; /* the dead connection may have carried it to the server */
    return CURL_SEEKFUNC_OK;
}

static bool add_line(vexi_s3_transfer *t, const char *name, const char *value) {
    char line[VEXI_S3_HEADER_SIZE_MAX + 64];
    int size = snprintf(line, sizeof line, "%s: %s", name, value);
    if (size < 0 || (size_t)size >= sizeof line) {
        return false;
    }
    struct curl_slist *list = curl_slist_append(t->header_list, line);
    if (list == NULL) {
        return false;
    }
    t->header_list = list;
    return true;
}

/* Sign the request and give its headers to the handle. */
static vex_status set_headers(vexi_s3_transfer *t, const vexi_s3_settings *settings,
                              const vexi_s3_address *address, vexi_s3_signer *signer,
                              vex_error *err) {
    static const char unsigned_payload[] = "UNSIGNED-PAYLOAD";
    const vexi_s3_call *call = t->call;
    char date[VEXI_S3_DATE_SIZE];
    vexi_s3_date(vexi_wall_us(t->env) / 1000000, date);
    vexi_s3_header headers[VEXI_S3_HEADERS_MAX];
    size_t count = 0;
    headers[count++] = (vexi_s3_header){"host", address->host};
    headers[count++] = (vexi_s3_header){"x-amz-content-sha256", unsigned_payload};
    headers[count++] = (vexi_s3_header){"x-amz-date", date};
    if (settings->session_token[0] != '\0') {
        headers[count++] = (vexi_s3_header){"x-amz-security-token", settings->session_token};
    }
    for (size_t i = 0; i < call->header_count; i++) {
        const char *name = call->headers[i].name;
        /* Proxies may touch the others, and no server asks for their being signed. */
        if (strncmp(name, "x-amz-", 6) == 0 || strcmp(name, "content-md5") == 0) {
            VEX_ASSERT(count < VEXI_S3_HEADERS_MAX);
            headers[count++] = call->headers[i];
        }
    }
    vexi_buffer value;
    vexi_buffer_init(&value, t->env, VEXI_S3_HEADER_SIZE_MAX);
    vexi_s3_sign(signer, date, call->method, call->path, call->query, headers, count,
                 unsigned_payload, &value);
    vexi_buffer_u8(&value, 0);
    vex_status status = vexi_buffer_check(&value, err);
    bool ok = status == VEX_OK && add_line(t, "authorization", (const char *)value.data) &&
              add_line(t, "x-amz-content-sha256", unsigned_payload) &&
              add_line(t, "x-amz-date", date) && add_line(t, "host", address->host);
    if (ok && settings->session_token[0] != '\0') {
        ok = add_line(t, "x-amz-security-token", settings->session_token);
    }
    for (size_t i = 0; ok && i < call->header_count; i++) {
        ok = add_line(t, call->headers[i].name, call->headers[i].value);
    }
    if (ok && call->is_ranged) {
        char range[64];
        snprintf(range, sizeof range, "bytes=%llu-%llu", (unsigned long long)call->start,
                 (unsigned long long)(call->end - 1));
        ok = add_line(t, "range", range);
    }
    if (ok) { /* "Name:" takes a header out that libcurl would add */
        struct curl_slist *list = curl_slist_append(t->header_list, "Expect:");
        ok = list != NULL;
        t->header_list = ok ? list : t->header_list;
    }
    vexi_buffer_deinit(&value);
    if (!ok && status == VEX_OK) {
        status = vexi_no_memory(err, VEXI_S3_HEADER_SIZE_MAX);
    }
    return status;
}

static bool set_options(vexi_s3_transfer *t, const vexi_s3_settings *settings,
                        const vexi_s3_address *address) {
    const vexi_s3_call *call = t->call;
    CURL *easy = t->easy;
    char url[sizeof address->base + VEXI_S3_PATH_SIZE_MAX + VEXI_S3_QUERY_SIZE_MAX];
    int size = snprintf(url, sizeof url, "%s%s%s%s", address->base, call->path,
                        call->query[0] == '\0' ? "" : "?", call->query);
    VEX_ASSERT(size > 0 && (size_t)size < sizeof url);
    bool ok = curl_easy_setopt(easy, CURLOPT_URL, url) == CURLE_OK;
#define SET(option, value) ok = ok && curl_easy_setopt(easy, option, value) == CURLE_OK
    SET(CURLOPT_PATH_AS_IS, 1L);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_USERAGENT, user_agent);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)settings->connect_timeout_ms);
    SET(CURLOPT_FRESH_CONNECT, call->is_probe ? 1L : 0L);
    SET(CURLOPT_HTTPHEADER, (struct curl_slist *)t->header_list);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, (void *)t);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, (void *)t);
    SET(CURLOPT_PRIVATE, (void *)t);
    if (address->is_loopback) {
        SET(CURLOPT_PROXY, ""); /* a proxy cannot reach it */
    }
    if (settings->insecure) {
        SET(CURLOPT_SSL_VERIFYPEER, 0L);
        SET(CURLOPT_SSL_VERIFYHOST, 0L);
    } else if (settings->ca_file[0] != '\0') {
        SET(CURLOPT_CAINFO, settings->ca_file);
    }
    if (strcmp(call->method, "HEAD") == 0) {
        SET(CURLOPT_NOBODY, 1L);
    } else if (call->has_body) {
        SET(CURLOPT_UPLOAD, 1L);
        SET(CURLOPT_READFUNCTION, on_read);
        SET(CURLOPT_READDATA, (void *)t);
        SET(CURLOPT_SEEKFUNCTION, on_seek);
        SET(CURLOPT_SEEKDATA, (void *)t);
        SET(CURLOPT_INFILESIZE_LARGE, (curl_off_t)call->body_size);
        SET(CURLOPT_CUSTOMREQUEST, call->method);
    } else if (strcmp(call->method, "GET") != 0) {
        SET(CURLOPT_CUSTOMREQUEST, call->method);
    }
#undef SET
    /* Refused by a handle that keeps its buffer from before, which then has this size already. */
    (void)curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 131072L);
    (void)curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, 131072L);
    return ok;
}

vex_status vexi_s3_transfer_init(vexi_s3_transfer *transfer, const vexi_env *env, vex_error *err) {
    *transfer = (vexi_s3_transfer){.env = env, .easy = curl_easy_init()};
    return transfer->easy == NULL ? vexi_no_memory(err, sizeof *transfer) : VEX_OK;
}

void vexi_s3_transfer_deinit(vexi_s3_transfer *transfer) {
    if (transfer->easy != NULL) {
        vexi_s3_transfer_end(transfer);
        curl_easy_cleanup(transfer->easy);
    }
    *transfer = (vexi_s3_transfer){0};
}

vex_status vexi_s3_transfer_begin(vexi_s3_transfer *transfer, vexi_s3_call *call, bool is_hedge,
                                  const vexi_s3_settings *settings, const vexi_s3_address *address,
                                  vexi_s3_signer *signer, vex_error *err) {
    VEX_ASSERT(transfer->call == NULL && transfer->header_list == NULL);
    uint64_t now = vexi_monotonic_ns(transfer->env);
    *transfer = (vexi_s3_transfer){.easy = transfer->easy,
                                   .env = transfer->env,
                                   .call = call,
                                   .is_hedge = is_hedge,
                                   .content_size = UINT64_MAX,
                                   .answer = {.total_size = UINT64_MAX},
                                   .started_ns = now,
                                   .progress_ns = now};
    vex_status status = VEX_OK;
    if (is_hedge && call->sink == VEXI_S3_SINK_RANGES) {
        size_t size = (size_t)(call->end - call->start);
        transfer->hedge_data = vexi_alloc(transfer->env, size);
        if (transfer->hedge_data == NULL) {
            status = vexi_no_memory(err, size);
            goto done;
        }
    }
    curl_easy_reset(transfer->easy);
    VEX_TRY_GOTO(status, done, set_headers(transfer, settings, address, signer, err));
    if (!set_options(transfer, settings, address)) {
        status = vexi_no_memory(err, VEXI_S3_PATH_SIZE_MAX);
    }

done:
    if (status != VEX_OK) {
        vexi_s3_transfer_end(transfer);
    }
    return status;
}

void vexi_s3_transfer_end(vexi_s3_transfer *transfer) {
    curl_slist_free_all(transfer->header_list);
    transfer->header_list = NULL;
    vexi_free(transfer->env, transfer->hedge_data);
    transfer->hedge_data = NULL;
    vexi_free(transfer->env, transfer->answer.body);
    transfer->answer = (vexi_s3_answer){0};
    transfer->call = NULL;
}
