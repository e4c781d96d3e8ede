/* Questions to the server before anything depends on it.
 *
 * The check is one listing of one name: it goes wrong where host, certificate, keys, clock, region
 * or bucket are, and its answer has a body that says which.
 *
 * The probe races put_if_absent. Commits and the write-ahead log stand on it, and servers exist
 * that answer several racing writers with "created" (SeaweedFS before 4.17, and every one that
 * does not know If-None-Match and ignores it). Some rounds of eight requests in flight together,
 * with different bytes: one of them must win, the object must be the winner's, and a later attempt
 * must be refused. That proves nothing, but a server that gets it wrong is seen in the first round
 * as a rule. */
#include <stdio.h>

#include "store/s3_internal.h"

enum { CHECK_ATTEMPT_COUNT_MAX = 4, CHECK_TIMEOUT_MS = 10000 };
enum { RACER_COUNT = 8, ROUND_COUNT = 4, ROUND_COUNT_MAX = 12 };

vex_status vexi_store_s3_check(vexi_store *store, vex_error *err) {
    vexi_s3_client *client = vexi_s3_store_of(store)->client;
    vexi_s3_client_enter(client);
    vexi_buffer path;
    vexi_buffer_init(&path, store->env, VEXI_S3_PATH_SIZE_MAX);
    vexi_s3_object_path(client, NULL, &path);
    vex_status status = vexi_buffer_check(&path, err);
    if (status == VEX_OK) {
        vexi_s3_call call = {.kind = VEXI_S3_LIST,
                             .what = vexi_s3_client_settings(client)->bucket,
                             .method = "GET",
                             .path = (const char *)path.data,
                             .query = "list-type=2&max-keys=1",
                             .attempt_count_max = CHECK_ATTEMPT_COUNT_MAX,
                             .total_timeout_ms = CHECK_TIMEOUT_MS,
                             .body_limit = VEXI_S3_BODY_SIZE_MAX};
        status = vexi_s3_run(client, &call, 1, err);
        if (status == VEX_NOT_FOUND) {
            status = vexi_fail(err, VEX_INVALID,
                               "%s does not answer as an S3 server: check --endpoint or "
                               "AWS_ENDPOINT_URL",
                               vexi_s3_client_address(client)->base);
        } else if (status == VEX_OK) {
            vexi_arena arena;
            vexi_arena_init(&arena, store->env);
            vexi_s3_entries entries = {0};
            vexi_s3_page page;
            status = vexi_s3_parse_list(store->env,
                                        vexi_span_of(call.answer.body, call.answer.body_size), "",
                                        &arena, &entries, &page, err);
            if (status == VEX_CORRUPT) {
                status = vexi_fail(err, VEX_INVALID,
                                   "%s does not answer as an S3 server: check --endpoint or "
                                   "AWS_ENDPOINT_URL",
                                   vexi_s3_client_address(client)->base);
            }
            vexi_free(store->env, entries.entries);
            vexi_arena_deinit(&arena);
        }
        vexi_s3_call_deinit(client, &call);
    }
    vexi_buffer_deinit(&path);
    vexi_s3_client_leave(client);
    return status;
}

static vex_status refuse(const vexi_s3_client *client, const char *what, vex_error *err) {
    return vexi_fail(err, VEX_UNSUPPORTED,
                     "%s %s: conditional writes (If-None-Match) are not safe there, and a lake "
                     "would lose commits. Update the server (SeaweedFS 4.17 or newer)",
                     vexi_s3_client_address(client)->base, what);
}

/* One race on a name of its own. *is_sure is false where lost answers leave it open. */
static vex_status race(vexi_store *store, const char *name, bool *is_sure, vex_error *err) {
    vexi_s3_client *client = vexi_s3_store_of(store)->client;
    vexi_buffer path;
    vexi_buffer_init(&path, store->env, VEXI_S3_PATH_SIZE_MAX);
    vexi_s3_object_path(client, name, &path);
    vex_status status = vexi_buffer_check(&path, err);
    if (status != VEX_OK) {
        vexi_buffer_deinit(&path);
        return status;
    }
    vexi_s3_call calls[RACER_COUNT];
    char bytes[RACER_COUNT][VEXI_S3_PUT_ID_SIZE + 1], crc[RACER_COUNT][VEXI_S3_CRC_SIZE];
    vexi_span parts[RACER_COUNT];
    for (size_t i = 0; i < RACER_COUNT; i++) {
        vexi_random_uuid(store->env, bytes[i]);
        parts[i] = vexi_span_of(bytes[i], VEXI_S3_PUT_ID_SIZE);
        vexi_s3_crc_text(&parts[i], 1, crc[i]);
        calls[i] = (vexi_s3_call){.kind = VEXI_S3_PUT,
                                  .what = name,
                                  .method = "PUT",
                                  .path = (const char *)path.data,
                                  .query = "",
                                  .has_body = true,
                                  .parts = &parts[i],
                                  .part_count = 1,
                                  .body_size = VEXI_S3_PUT_ID_SIZE,
                                  .body_limit = VEXI_S3_ERROR_BODY_SIZE_MAX,
                                  .is_independent = true};
        vexi_s3_call_header(&calls[i], "x-amz-checksum-crc32c", crc[i]);
        vexi_s3_call_header(&calls[i], "if-none-match", "*");
    }
    (void)vexi_s3_run(client, calls, RACER_COUNT, NULL);
    size_t win_count = 0, winner = 0;
    bool is_doubtful = false;
    for (size_t i = 0; i < RACER_COUNT; i++) {
        is_doubtful = is_doubtful || calls[i].is_doubtful;
        if (calls[i].status == VEX_OK) {
            win_count++;
            winner = i;
        } else if (calls[i].status != VEX_EXISTS && !calls[i].is_doubtful) {
            if (status == VEX_OK && err != NULL) {
                *err = calls[i].error;
            }
            status = calls[i].status;
        }
        vexi_s3_call_deinit(client, &calls[i]);
    }
    *is_sure = !is_doubtful;
    if (status == VEX_OK && win_count > 1) {
        status = refuse(client, "let several writers create the same object", err);
    } else if (status == VEX_OK && win_count == 0 && !is_doubtful) {
        status = refuse(client, "let nobody create an object", err);
    } else if (status == VEX_OK && win_count == 1 && !is_doubtful) {
        uint8_t found[VEXI_S3_PUT_ID_SIZE];
        vexi_range range = {.size = sizeof found, .target = found};
        status = vexi_store_get(store, name, &range, 1, err);
        if (status == VEX_OK && memcmp(found, bytes[winner], sizeof found) != 0) {
            status =
                refuse(client, "replaced the object of the writer who was told to have won", err);
        }
        if (status == VEX_OK) {
            vex_status again =
                vexi_store_put_if_absent(store, name, &parts[(winner + 1) % RACER_COUNT], 1, err);
            if (again == VEX_OK) {
                status = refuse(client, "replaced an object that was there", err);
            } else if (again != VEX_EXISTS) {
                status = again;
            }
        }
    }
    vexi_buffer_deinit(&path);
    return status;
}

vex_status vexi_store_s3_probe(vexi_store *store, vex_error *err) {
    vexi_s3_client *client = vexi_s3_store_of(store)->client;
    vexi_s3_client_enter(client);
    vex_status status = VEX_OK;
    size_t sure_count = 0;
    for (size_t i = 0; status == VEX_OK && i < ROUND_COUNT_MAX && sure_count < ROUND_COUNT; i++) {
        char name[64], id[VEXI_S3_PUT_ID_SIZE + 1];
        vexi_random_uuid(store->env, id);
        snprintf(name, sizeof name, ".vexlake/probe/%s", id);
        bool is_sure = false;
        status = race(store, name, &is_sure, err);
        sure_count += is_sure ? 1 : 0;
        /* A scratch object that stays does no harm. */
        (void)vexi_store_remove(store, name, NULL);
    }
    if (status == VEX_OK && sure_count == 0) {
        status = vexi_fail(err, VEXI_S3_UNAVAILABLE,
                           "store unavailable: %s lost too many answers to tell whether its "
                           "conditional writes are safe",
                           vexi_s3_client_address(client)->base);
    }
    vexi_s3_client_leave(client);
    return status;
}
