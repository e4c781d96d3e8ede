/* The client: one network thread per store that carries all requests of all callers.
 *
 * A caller hands over a group of calls and sleeps until every one has ended, so the ranges of one
 * get are in flight together whatever the number of callers. The thread owns libcurl's multi
 * handle, its pool of kept connections, and everything that decides about a request: when it
 * starts, whether it is tried again, when it is given up. Calls move
 *
 *     submitted -> ready -> active -> ended
 *                    ^         |
 *                    +- delayed (waits for its next attempt)
 *
 * `submitted` is the only list that other threads touch, under the mutex; a call that has ended is
 * told to its group under the mutex too. All else belongs to the network thread.
 *
 * A transfer is one attempt. A call has at most two under way: with hedging, a GET whose answer has
 * not begun after the given percentile of such times gets a second one, at most one for twenty
 * requests (Dean and Barroso, "The Tail at Scale", 2013). The first to succeed ends the other.
 *
 * Keys that the server does not take any more are looked for again where they came from, and where
 * there are others the request is repeated with them (see s3.h).
 *
 * Timeouts are watched here and not by libcurl, whose stall watch counts whole seconds: no byte
 * either way for stall_timeout_ms ends an attempt, total_timeout_ms ends the call with its retries.
 *
 * While the breaker (s3_breaker.c) is open no call starts: all fail at once, and those under way
 * when it opened have been ended.
 *
 * Destroying the store ends all calls with VEX_CANCELLED and waits until their callers have left.
 *
 * Tried and dropped: callers driving libcurl themselves (one multi handle each: no shared
 * connections, and a slow caller holds its own up), and libcurl's own thread-safe sharing of
 * connections, which its documentation does not promise to work. */
#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

#include "store/s3_internal.h"

struct vexi_s3_group {
    pthread_cond_t done;
    size_t pending;  /* guarded by the client's mutex */
    bool has_failed; /* the network thread's */
};

typedef struct call_list {
    vexi_s3_call *first;
    vexi_s3_call *last;
} call_list;

struct vexi_s3_client {
    const vexi_env *env;
    vexi_s3_settings settings; /* immutable, but for the keys: the network thread's */
    vexi_s3_address address;   /* immutable */
    CURLM *multi;
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t mutex;
    pthread_cond_t left; /* a caller left */

    /* Guarded by the mutex. */
    call_list submitted;
    bool stop;
    size_t caller_count;
    vexi_s3_counters counters[VEXI_S3_KIND_COUNT];
    vexi_s3_health health;

    /* The network thread's. */
    call_list ready;
    call_list delayed;
    vexi_s3_transfer *transfers; /* connection_count_max of them, and one for the probe */
    size_t transfer_count;
    size_t active_count;
    vexi_s3_signer signer;
    uint64_t keys_number;     /* counts keys that were taken */
    uint64_t keys_checked_ns; /* when they were last looked for, 0 for never */
    vexi_s3_pace pace;
    vexi_s3_breaker breaker;
    char away_reason[300]; /* what the last probe that failed met */
    vexi_s3_call probe;    /* under way while breaker.is_probing */
    vexi_buffer probe_path;
    uint64_t first_byte_buckets[VEXI_S3_LATENCY_BUCKETS]; /* of ranged GETs */
    uint64_t first_byte_count;
    uint64_t hedge_after_ns; /* 0: none */
    double hedge_tokens;
};

static const uint64_t millisecond_ns = 1000000u;
static const uint64_t keys_pause_ns = 1000000000u;
static const double hedge_share = 0.05;
static const char probe_name[] = "is it there?";
static const char probe_prefix[] = "store unavailable: is it there?: ";

/* ---- Lists ----------------------------------------------------------------------------------- */

static void push(call_list *list, vexi_s3_call *call) {
    call->next = NULL;
    if (list->last == NULL) {
        list->first = call;
    } else {
        list->last->next = call;
    }
    list->last = call;
}

static vexi_s3_call *pop(call_list *list) {
    vexi_s3_call *call = list->first;
    list->first = call->next;
    if (list->first == NULL) {
        list->last = NULL;
    }
    call->next = NULL;
    return call;
}

/* ---- Ending a call --------------------------------------------------------------------------- */

/* The call is over: its status and error are set. Its memory may be gone on return. */
static void end_call(vexi_s3_client *client, vexi_s3_call *call) {
    VEX_ASSERT(!call->is_ended && call->active_count == 0);
    call->is_ended = true;
    if (call->is_probe) {
        return; /* nobody waits for it */
    }
    vexi_s3_group *group = call->group;
    if (call->status != VEX_OK && !call->is_independent) {
        group->has_failed = true;
    }
    (void)pthread_mutex_lock(&client->mutex);
    group->pending--;
    if (group->pending == 0) {
        (void)pthread_cond_signal(&group->done);
    }
    (void)pthread_mutex_unlock(&client->mutex);
}

static void cancel_call(vexi_s3_client *client, vexi_s3_call *call) {
    call->status = vexi_fail(&call->error, VEX_CANCELLED, "%s: given up", call->what);
    end_call(client, call);
}

static uint32_t total_timeout_ms(const vexi_s3_client *client, const vexi_s3_call *call) {
    if (call->is_probe) {
        return client->settings.probe_timeout_ms;
    }
    return call->total_timeout_ms != 0 ? call->total_timeout_ms : client->settings.total_timeout_ms;
}

/* The server is away. A call that has met that itself ends with what it met. */
static void refuse_call(vexi_s3_client *client, vexi_s3_call *call) {
    if (call->status == VEX_OK) {
        call->status = vexi_fail(&call->error, VEXI_S3_UNAVAILABLE, "store unavailable: %s: %s",
                                 call->what, client->away_reason);
    }
    end_call(client, call);
}

/* ---- Transfers ------------------------------------------------------------------------------- */

static vexi_s3_transfer *idle_transfer(vexi_s3_client *client) {
    for (size_t i = 0; i < client->transfer_count; i++) {
        if (client->transfers[i].call == NULL) {
            return &client->transfers[i];
        }
    }
    return NULL;
}

static void count_start(vexi_s3_client *client, const vexi_s3_call *call, bool is_hedge) {
    (void)pthread_mutex_lock(&client->mutex);
    vexi_s3_counters *counters = &client->counters[call->kind];
    counters->requests++;
    counters->hedges += is_hedge ? 1 : 0;
    counters->retries += !is_hedge && call->attempt_count > 1 ? 1 : 0;
    (void)pthread_mutex_unlock(&client->mutex);
}

static void count_end(vexi_s3_client *client, const vexi_s3_transfer *t, bool is_answered,
                      bool is_error, bool is_throttled) {
    uint64_t duration_ns = vexi_monotonic_ns(client->env) - t->started_ns;
    (void)pthread_mutex_lock(&client->mutex);
    vexi_s3_counters *counters = &client->counters[t->call->kind];
    counters->errors += is_error ? 1 : 0;
    counters->throttled += is_throttled ? 1 : 0;
    counters->sent_bytes += t->sent_size;
    counters->received_bytes += t->received_size;
    if (is_answered) {
        counters->latency_ns += duration_ns;
        counters->latency_count++;
        counters->latency_buckets[vexi_s3_latency_bucket(duration_ns)]++;
    }
    (void)pthread_mutex_unlock(&client->mutex);
}

/* Take a transfer out of the multi handle and make it idle. */
static void drop_transfer(vexi_s3_client *client, vexi_s3_transfer *t) {
    (void)curl_multi_remove_handle(client->multi, t->easy);
    VEX_ASSERT(t->call->active_count > 0 && client->active_count > 0);
    t->call->active_count--;
    client->active_count--;
    vexi_s3_transfer_end(t);
}

/* End all transfers of a call. */
static void drop_transfers_of(vexi_s3_client *client, const vexi_s3_call *call) {
    for (size_t i = 0; i < client->transfer_count; i++) {
        vexi_s3_transfer *t = &client->transfers[i];
        if (t->call == call) {
            count_end(client, t, false, false, false);
            drop_transfer(client, t);
        }
    }
}

static vex_status start_transfer(vexi_s3_client *client, vexi_s3_call *call, bool is_hedge,
                                 vex_error *err) {
    vexi_s3_transfer *t = idle_transfer(client);
    VEX_ASSERT(t != NULL);
    if (t->easy == NULL) {
        VEX_TRY(vexi_s3_transfer_init(t, client->env, err));
    }
    VEX_TRY(vexi_s3_transfer_begin(t, call, is_hedge, &client->settings, &client->address,
                                   &client->signer, err));
    if (curl_multi_add_handle(client->multi, t->easy) != CURLM_OK) {
        vexi_s3_transfer_end(t);
        return vexi_no_memory(err, sizeof *t);
    }
    t->keys_number = client->keys_number;
    client->active_count++;
    call->active_count++;
    vexi_s3_breaker_waits(&client->breaker, t->started_ns);
    count_start(client, call, is_hedge);
    return VEX_OK;
}

/* The server does not take the keys of this transfer: are there others by now? The files are looked
 * at once a second at most, whatever the number of requests that were refused. */
static bool has_other_keys(vexi_s3_client *client, const vexi_s3_transfer *t) {
    uint64_t now = vexi_monotonic_ns(client->env);
    if (t->keys_number == client->keys_number && client->settings.keys_profile[0] != '\0' &&
        (client->keys_checked_ns == 0 || now - client->keys_checked_ns >= keys_pause_ns)) {
        client->keys_checked_ns = now;
        bool changed = false;
        vexi_s3_settings_renew_keys(&client->settings, &changed);
        if (changed) {
            client->keys_number++;
            client->signer.day[0] = '\0'; /* the derived key is of the old secret */
        }
    }
    return t->keys_number != client->keys_number;
}

/* The call's last attempt failed and none is under way: wait for another, or end. */
static void after_failure(vexi_s3_client *client, vexi_s3_call *call, uint32_t retry_after_ms) {
    uint64_t now = vexi_monotonic_ns(client->env);
    uint32_t attempt_count_max =
        call->attempt_count_max != 0 ? call->attempt_count_max : client->settings.attempt_count_max;
    if (call->is_probe) {
        end_call(client, call);
        return;
    }
    if (client->breaker.is_open) {
        end_call(client, call); /* with what went wrong */
        return;
    }
    bool may_repeat = call->failure != VEXI_S3_FINAL && call->attempt_count < attempt_count_max &&
                      !call->group->has_failed;
    if (!may_repeat || !vexi_s3_pace_take(&client->pace)) {
        end_call(client, call);
        return;
    }
    call->due_ns =
        now + vexi_s3_pace_delay_ns(&client->pace, call->attempt_count + 1, retry_after_ms);
    if (call->due_ns >= call->deadline_ns) {
        end_call(client, call);
        return;
    }
    push(&client->delayed, call);
}

static void note_first_byte(vexi_s3_client *client, vexi_s3_transfer *t) {
    curl_off_t microseconds = 0;
    if (client->settings.hedge_percentile == 0 || t->call->sink != VEXI_S3_SINK_RANGES ||
        curl_easy_getinfo(t->easy, CURLINFO_STARTTRANSFER_TIME_T, &microseconds) != CURLE_OK ||
        microseconds <= 0) {
        return;
    }
    client->first_byte_buckets[vexi_s3_latency_bucket((uint64_t)microseconds * 1000)]++;
    client->first_byte_count++;
    if (client->first_byte_count % 64 == 0) {
        client->hedge_after_ns = vexi_s3_latency_percentile_ns(client->first_byte_buckets,
                                                               client->settings.hedge_percentile);
    }
}

/* A transfer ended: by libcurl with `code`, or by us for want of time. */
static void end_transfer(vexi_s3_client *client, vexi_s3_transfer *t, CURLcode code,
                         const char *timeout_text) {
    vexi_s3_call *call = t->call;
    long http = 0;
    curl_off_t retry_after_s = 0;
    (void)curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &http);
    (void)curl_easy_getinfo(t->easy, CURLINFO_RETRY_AFTER, &retry_after_s);
    (void)curl_easy_getinfo(t->easy, CURLINFO_SSL_VERIFYRESULT, &t->certificate);
    t->answer.http_status = (int)http;
    retry_after_s = retry_after_s < 0 ? 0 : retry_after_s;
    t->retry_after_ms = (uint32_t)(retry_after_s < 30 ? retry_after_s * 1000 : 30000);
    if (http >= 300) {
        char region[sizeof t->answer.error.region];
        memcpy(region, t->answer.error.region, sizeof region);
        (void)vexi_s3_parse_error(vexi_span_of(t->answer.body, t->answer.body_size),
                                  &t->answer.error);
        if (t->answer.error.region[0] == '\0') {
            memcpy(t->answer.error.region, region, sizeof region);
        }
    }
    vex_error err = {0};
    vex_status status = VEX_OK;
    vexi_s3_failure failure =
        vexi_s3_judge(t, (int)code, timeout_text, &client->settings, &client->address,
                      vexi_wall_us(client->env) / 1000000, &status, &err);
    if (failure == VEXI_S3_KEYS && !has_other_keys(client, t)) {
        failure = VEXI_S3_FINAL;
    }
    uint64_t now = vexi_monotonic_ns(client->env);
    bool is_plain = failure == VEXI_S3_DONE || http == 404 || http == 412;
    count_end(client, t, http != 0, !is_plain, failure == VEXI_S3_THROTTLED);
    if (http != 0) {
        note_first_byte(client, t);
    }
    if (http != 0 && (http < 500 || failure == VEXI_S3_THROTTLED)) {
        vexi_s3_breaker_good(&client->breaker, now, client->active_count > 1);
    }
    if (failure == VEXI_S3_DONE || failure == VEXI_S3_FINAL) {
        /* The server may have done it although its answer found no room here. */
        call->is_doubtful =
            call->is_doubtful || (failure == VEXI_S3_FINAL && (t->no_memory || t->is_too_large));
        if (failure == VEXI_S3_DONE) {
            vexi_s3_pace_success(&client->pace);
            if (t->hedge_data != NULL) {
                vexi_s3_scatter(call->ranges, call->range_count, call->start, t->hedge_data,
                                (size_t)(call->end - call->start));
            }
        }
        if (t->answer.total_size == UINT64_MAX && http == 200) {
            t->answer.total_size = t->content_size;
        }
        vexi_free(client->env, call->answer.body);
        call->answer = t->answer;
        t->answer.body = NULL;
        call->status = status;
        if (status != VEX_OK) {
            call->error = err;
        }
        call->failure = failure;
        /* The body is the call's now, and a slower twin is no longer needed. */
        drop_transfer(client, t);
        drop_transfers_of(client, call);
        end_call(client, call);
        return;
    }
    uint32_t retry_after_ms = t->retry_after_ms;
    call->status = status;
    call->error = err;
    call->failure = failure;
    call->is_doubtful = call->is_doubtful || (failure != VEXI_S3_UNSENT && failure != VEXI_S3_KEYS);
    if (failure == VEXI_S3_THROTTLED) {
        vexi_s3_pace_throttled(&client->pace, now, retry_after_ms);
    }
    drop_transfer(client, t);
    if (call->active_count == 0) {
        after_failure(client, call, retry_after_ms);
    }
}

/* ---- One turn of the thread ------------------------------------------------------------------ */

static bool take_submitted(vexi_s3_client *client) {
    (void)pthread_mutex_lock(&client->mutex);
    while (client->submitted.first != NULL) {
        vexi_s3_call *call = pop(&client->submitted);
        if (call->delay_ms > 0) {
            call->due_ns = vexi_monotonic_ns(client->env) + call->delay_ms * (uint64_t)1000000;
        }
        push(call->delay_ms > 0 ? &client->delayed : &client->ready, call);
    }
    bool stop = client->stop;
    (void)pthread_mutex_unlock(&client->mutex);
    return stop;
}

/* Delayed calls whose time has come become ready. */
static void wake_delayed(vexi_s3_client *client, uint64_t now) {
    call_list waiting = client->delayed;
    client->delayed = (call_list){0};
    while (waiting.first != NULL) {
        vexi_s3_call *call = pop(&waiting);
        if (call->group->has_failed) {
            cancel_call(client, call);
        } else if (call->due_ns <= now) {
            push(&client->ready, call);
        } else {
            push(&client->delayed, call);
        }
    }
}

/* When a delayed call is due, UINT64_MAX without one. */
static uint64_t next_delayed_ns(const vexi_s3_client *client) {
    uint64_t next_ns = UINT64_MAX;
    for (const vexi_s3_call *call = client->delayed.first; call != NULL; call = call->next) {
        next_ns = call->due_ns < next_ns ? call->due_ns : next_ns;
        next_ns = call->group->has_failed ? 0 : next_ns;
    }
    return next_ns;
}

static void start_ready(vexi_s3_client *client, uint64_t now) {
    size_t window = (size_t)client->pace.window;
    while (client->ready.first != NULL) {
        vexi_s3_call *call = client->ready.first;
        if (call->group->has_failed) {
            cancel_call(client, pop(&client->ready));
            continue;
        }
        if (client->breaker.is_open) {
            refuse_call(client, pop(&client->ready));
            continue;
        }
        if (client->active_count >= window || now < client->pace.hold_ns) {
            break;
        }
        (void)pop(&client->ready);
        if (call->attempt_count == 0) {
            call->deadline_ns = now + total_timeout_ms(client, call) * millisecond_ns;
        }
        call->attempt_count++;
        vex_status status = start_transfer(client, call, false, &call->error);
        if (status != VEX_OK) {
            call->status = status;
            call->failure = VEXI_S3_FINAL;
            end_call(client, call);
            continue;
        }
        client->hedge_tokens = client->hedge_tokens + hedge_share < 10.0
                                   ? client->hedge_tokens + hedge_share
                                   : client->hedge_tokens;
    }
}

/* Give the transfer a twin if it is slow to begin; returns when to look again. */
static uint64_t consider_hedge(vexi_s3_client *client, vexi_s3_transfer *t, uint64_t now) {
    vexi_s3_call *call = t->call;
    if (client->hedge_after_ns == 0 || call->sink != VEXI_S3_SINK_RANGES || t->is_hedge ||
        t->saw_header || call->was_hedged) {
        return UINT64_MAX;
    }
    uint64_t due_ns = t->started_ns + client->hedge_after_ns;
    if (now < due_ns) {
        return due_ns;
    }
    if (client->hedge_tokens < 1.0 ||
        client->active_count >= client->settings.connection_count_max) {
        return UINT64_MAX;
    }
    call->was_hedged = true;
    if (start_transfer(client, call, true, NULL) == VEX_OK) {
        client->hedge_tokens -= 1.0;
    }
    return UINT64_MAX;
}

/* End transfers that are out of time or no longer wanted; returns when to look again. */
static uint64_t watch_transfers(vexi_s3_client *client, uint64_t now) {
    uint64_t next_ns = UINT64_MAX;
    uint64_t stall_ns = client->settings.stall_timeout_ms * millisecond_ns;
    for (size_t i = 0; i < client->transfer_count; i++) {
        vexi_s3_transfer *t = &client->transfers[i];
        vexi_s3_call *call = t->call;
        if (call == NULL) {
            continue;
        }
        if (!call->is_probe && call->group->has_failed) {
            drop_transfers_of(client, call);
            cancel_call(client, call);
            continue;
        }
        if (t->progress_ns > t->started_ns && client->breaker.waiting_ns != 0 &&
            t->progress_ns > client->breaker.waiting_ns) {
            vexi_s3_breaker_good(&client->breaker, t->progress_ns, true);
        }
        uint64_t due_ns = t->progress_ns + stall_ns;
        due_ns = due_ns < call->deadline_ns ? due_ns : call->deadline_ns;
        if (now >= due_ns) {
            char text[64];
            bool is_stall = now < call->deadline_ns;
            snprintf(text, sizeof text, is_stall ? "no byte for %u ms" : "no end after %u ms",
                     is_stall ? client->settings.stall_timeout_ms : total_timeout_ms(client, call));
            end_transfer(client, t, CURLE_OPERATION_TIMEDOUT, text);
            continue;
        }
        next_ns = due_ns < next_ns ? due_ns : next_ns;
        due_ns = consider_hedge(client, t, now);
        next_ns = due_ns < next_ns ? due_ns : next_ns;
    }
    return next_ns;
}

static void reap(vexi_s3_client *client) {
    for (;;) {
        int left = 0;
        CURLMsg *message = curl_multi_info_read(client->multi, &left);
        if (message == NULL) {
            return;
        }
        if (message->msg != CURLMSG_DONE) {
            continue;
        }
        void *private = NULL;
        CURLcode code = message->data.result;
        (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
        end_transfer(client, private, code, NULL);
    }
}

static void end_everything(vexi_s3_client *client,
                           void (*end)(vexi_s3_client *client, vexi_s3_call *call)) {
    for (size_t i = 0; i < client->transfer_count; i++) {
        vexi_s3_call *call = client->transfers[i].call;
        if (call != NULL) {
            call->is_doubtful = true; /* it may have arrived */
            drop_transfers_of(client, call);
            end(client, call);
        }
    }
    while (client->ready.first != NULL) {
        end(client, pop(&client->ready));
    }
    while (client->delayed.first != NULL) {
        end(client, pop(&client->delayed));
    }
}

/* ---- Is the server there? -------------------------------------------------------------------- */

/* The first byte of the object that every lake has. Any answer that is no 5xx will do. */
static void start_probe(vexi_s3_client *client, uint64_t now) {
    vexi_s3_breaker_probe(&client->breaker, now);
    client->probe = (vexi_s3_call){.kind = VEXI_S3_HEAD,
                                   .what = probe_name,
                                   .method = "GET",
                                   .path = (const char *)client->probe_path.data,
                                   .query = "",
                                   .body_limit = VEXI_S3_ERROR_BODY_SIZE_MAX,
                                   .is_ranged = true,
                                   .end = 1,
                                   .is_probe = true,
                                   .attempt_count = 1};
    client->probe.deadline_ns = now + client->settings.probe_timeout_ms * millisecond_ns;
    if (start_transfer(client, &client->probe, false, NULL) != VEX_OK) {
        client->breaker.is_probing = false; /* no memory: at the next turn */
    }
}

static void set_health(vexi_s3_client *client, uint64_t now) {
    (void)pthread_mutex_lock(&client->mutex);
    client->health = (vexi_s3_health){.is_away = client->breaker.is_open,
                                      .away_count = client->breaker.open_count};
    (void)pthread_mutex_unlock(&client->mutex);
    if (client->breaker.is_open && client->breaker.has_answered) { /* else opening the lake fails */
        vexi_log(client->env, 2, "store unavailable: %s: %s", client->address.base,
                 client->away_reason);
    } else if (!client->breaker.is_open) {
        vexi_log(client->env, 1, "store available: %s answers again after %llu ms",
                 client->address.base,
                 (unsigned long long)((now - client->breaker.opened_ns) / millisecond_ns));
    }
}

/* What the probe that has ended says; then a new one if it is time. */
static void watch_server(vexi_s3_client *client, uint64_t now) {
    vexi_s3_call *probe = &client->probe;
    if (client->breaker.is_probing && probe->is_ended) {
        int http = probe->answer.http_status;
        bool answered = probe->status == VEX_OK || probe->failure == VEXI_S3_THROTTLED ||
                        (http != 0 && http < 500);
        if (!answered) {
            const char *reason = probe->error.message;
            size_t known = strlen(probe_prefix);
            reason += strncmp(reason, probe_prefix, known) == 0 ? known : 0;
            snprintf(client->away_reason, sizeof client->away_reason, "%.299s", reason);
        }
        vexi_s3_breaker_change change =
            vexi_s3_breaker_probed(&client->breaker, now, answered, client->active_count > 0);
        if (change != VEXI_S3_BREAKER_SAME) {
            set_health(client, now);
        }
        vexi_s3_call_deinit(client, probe);
        if (change == VEXI_S3_BREAKER_OPENED) {
            end_everything(client, refuse_call);
        } else if (change == VEXI_S3_BREAKER_CLOSED) {
            vexi_s3_pace_refill(&client->pace);
        }
    }
    if (vexi_s3_breaker_due_ns(&client->breaker) <= now) {
        start_probe(client, now);
    }
}

static void *run_thread(void *argument) {
    vexi_s3_client *client = argument;
    while (!take_submitted(client)) {
        uint64_t now = vexi_monotonic_ns(client->env);
        wake_delayed(client, now);
        start_ready(client, now);
        watch_server(client, now);
        int running = 0;
        (void)curl_multi_perform(client->multi, &running);
        reap(client);
        now = vexi_monotonic_ns(client->env);
        /* After all that may have delayed a call. */
        uint64_t next_ns = watch_transfers(client, now);
        uint64_t delayed_ns = next_delayed_ns(client);
        next_ns = delayed_ns < next_ns ? delayed_ns : next_ns;
        uint64_t probe_ns = client->breaker.is_probing && client->probe.is_ended
                                ? now
                                : vexi_s3_breaker_due_ns(&client->breaker);
        next_ns = probe_ns < next_ns ? probe_ns : next_ns;
        if (client->ready.first != NULL) {
            /* Held back for a time, or by the window, and then an ending transfer wakes us. */
            uint64_t ready_ns = UINT64_MAX;
            if (client->pace.hold_ns > now) {
                ready_ns = client->pace.hold_ns;
            } else if (client->active_count < (size_t)client->pace.window) {
                ready_ns = now;
            }
            next_ns = ready_ns < next_ns ? ready_ns : next_ns;
        }
        uint64_t wait_ms = 60000;
        if (next_ns != UINT64_MAX) {
            wait_ms = next_ns <= now ? 0 : (next_ns - now) / millisecond_ns + 1;
            wait_ms = wait_ms < 60000 ? wait_ms : 60000;
        }
        (void)curl_multi_poll(client->multi, NULL, 0, (int)wait_ms, NULL);
    }
    end_everything(client, cancel_call);
    vexi_s3_call_deinit(client, &client->probe);
    return NULL;
}

/* ---- Callers --------------------------------------------------------------------------------- */

void vexi_s3_client_enter(vexi_s3_client *client) {
    (void)pthread_mutex_lock(&client->mutex);
    client->caller_count++;
    (void)pthread_mutex_unlock(&client->mutex);
}

void vexi_s3_client_leave(vexi_s3_client *client) {
    (void)pthread_mutex_lock(&client->mutex);
    client->caller_count--;
    if (client->caller_count == 0) {
        (void)pthread_cond_signal(&client->left);
    }
    (void)pthread_mutex_unlock(&client->mutex);
}

void vexi_s3_call_header(vexi_s3_call *call, const char *name, const char *value) {
    /* Four of the places are for what every request has. */
    VEX_ASSERT(call->header_count + 4 < VEXI_S3_HEADERS_MAX);
    call->headers[call->header_count++] = (vexi_s3_header){name, value};
}

void vexi_s3_call_deinit(vexi_s3_client *client, vexi_s3_call *call) {
    vexi_free(client->env, call->answer.body);
    call->answer = (vexi_s3_answer){0};
}

vex_status vexi_s3_run(vexi_s3_client *client, vexi_s3_call *calls, size_t count, vex_error *err) {
    if (count == 0) {
        return VEX_OK;
    }
    vexi_s3_group group = {.pending = count};
    if (pthread_cond_init(&group.done, NULL) != 0) {
        return vexi_no_memory(err, sizeof group);
    }
    (void)pthread_mutex_lock(&client->mutex);
    bool stop = client->stop;
    if (!stop) {
        for (size_t i = 0; i < count; i++) {
            vexi_s3_call *call = &calls[i];
            call->group = &group;
            push(&client->submitted, call);
        }
        (void)curl_multi_wakeup(client->multi);
        while (group.pending > 0) {
            (void)pthread_cond_wait(&group.done, &client->mutex);
        }
    }
    (void)pthread_mutex_unlock(&client->mutex);
    (void)pthread_cond_destroy(&group.done);
    if (stop) {
        return vexi_fail(err, VEX_CANCELLED, "%s: the store is being closed", calls[0].what);
    }
    const vexi_s3_call *failed = NULL;
    for (size_t i = 0; i < count; i++) {
        const vexi_s3_call *call = &calls[i];
        if (call->status != VEX_OK && (failed == NULL || (failed->status == VEX_CANCELLED &&
                                                          call->status != VEX_CANCELLED))) {
            failed = call;
        }
    }
    if (failed == NULL) {
        return VEX_OK;
    }
    if (err != NULL) {
        *err = failed->error;
    }
    return failed->status;
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void set_default(uint32_t *value, uint32_t fallback) {
    *value = *value == 0 ? fallback : *value;
}

static void set_default_size(size_t *value, size_t fallback) {
    *value = *value == 0 ? fallback : *value;
}

static void set_defaults(vexi_s3_settings *s) {
    set_default(&s->connection_count_max, 64);
    set_default(&s->connect_timeout_ms, 3000);
    set_default(&s->stall_timeout_ms, 10000);
    set_default(&s->total_timeout_ms, 60000);
    set_default(&s->attempt_count_max, 8);
    set_default(&s->backoff_base_ms, 50);
    set_default(&s->backoff_max_ms, 5000);
    set_default(&s->suspect_ms, 3000);
    set_default(&s->probe_interval_ms, 1000);
    set_default(&s->probe_timeout_ms, 2000);
    set_default(&s->retry_budget, 200);
    set_default_size(&s->gap_size_max, 64 << 10);
    set_default_size(&s->part_size, 8 << 20);
    set_default_size(&s->multipart_size_min, 16 << 20);
}

void vexi_s3_client_destroy(vexi_s3_client *client) {
    if (client == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&client->mutex);
    client->stop = true;
    (void)pthread_mutex_unlock(&client->mutex);
    if (client->has_thread) {
        (void)curl_multi_wakeup(client->multi);
        (void)pthread_join(client->thread, NULL);
    }
    (void)pthread_mutex_lock(&client->mutex);
    while (client->caller_count > 0) {
        (void)pthread_cond_wait(&client->left, &client->mutex);
    }
    (void)pthread_mutex_unlock(&client->mutex);
    if (client->transfers != NULL) {
        for (size_t i = 0; i < client->transfer_count; i++) {
            vexi_s3_transfer_deinit(&client->transfers[i]);
        }
        vexi_free(client->env, client->transfers);
    }
    vexi_buffer_deinit(&client->probe_path);
    if (client->multi != NULL) {
        (void)curl_multi_cleanup(client->multi);
    }
    curl_global_cleanup();
    (void)pthread_cond_destroy(&client->left);
    (void)pthread_mutex_destroy(&client->mutex);
    vexi_s3_settings_wipe(&client->settings);
    explicit_bzero(&client->signer, sizeof client->signer);
    vexi_free(client->env, client);
}

vex_status vexi_s3_client_create(const vexi_env *env, const vexi_s3_settings *settings,
                                 vexi_s3_client **out, vex_error *err) {
    *out = NULL;
    vexi_s3_address address;
    VEX_TRY(vexi_s3_address_make(settings, &address, err));
    vexi_s3_client *client = vexi_calloc(env, 1, sizeof *client);
    if (client == NULL) {
        return vexi_no_memory(err, sizeof *client);
    }
    client->env = env;
    client->settings = *settings;
    client->address = address;
    set_defaults(&client->settings);
    client->signer = (vexi_s3_signer){.access_key = client->settings.access_key,
                                      .secret_key = client->settings.secret_key,
                                      .region = client->settings.region,
                                      .service = "s3"};
    uint64_t seed = settings->seed != 0 ? settings->seed : vexi_random_u64(env);
    vexi_s3_pace_init(&client->pace, &client->settings, seed);
    vexi_s3_breaker_init(&client->breaker, client->settings.suspect_ms * millisecond_ns,
                         client->settings.probe_interval_ms * millisecond_ns);
    vex_status status = VEX_OK;
    if (pthread_mutex_init(&client->mutex, NULL) != 0) {
        vexi_free(env, client);
        return vexi_no_memory(err, sizeof *client);
    }
    if (pthread_cond_init(&client->left, NULL) != 0) {
        (void)pthread_mutex_destroy(&client->mutex);
        vexi_free(env, client);
        return vexi_no_memory(err, sizeof *client);
    }
    /* Counted and thread-safe in every libcurl since 7.84, and 7.85 is asked for. */
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    vexi_buffer_init(&client->probe_path, env, VEXI_S3_PATH_SIZE_MAX);
    vexi_s3_object_path(client, ".vexlake/format", &client->probe_path);
    uint32_t transfer_count = client->settings.connection_count_max + 1;
    client->multi = curl_multi_init();
    client->transfers = vexi_calloc(env, transfer_count, sizeof *client->transfers);
    if (client->multi == NULL || client->transfers == NULL) {
        status = vexi_no_memory(err, transfer_count * sizeof *client->transfers);
        goto done;
    }
    client->transfer_count = transfer_count;
    VEX_TRY_GOTO(status, done, vexi_buffer_check(&client->probe_path, err));
    (void)curl_multi_setopt(client->multi, CURLMOPT_MAXCONNECTS, (long)transfer_count);
    /* The thread takes no signals: they are the program's, and a broken TLS connection would raise
     * SIGPIPE in it. */
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int made = pthread_create(&client->thread, NULL, run_thread, client);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (made != 0) {
        status = vexi_fail(err, VEX_IO, "no thread for the requests to %s", address.base);
        goto done;
    }
    client->has_thread = true;
    *out = client;

done:
    if (status != VEX_OK) {
        vexi_s3_client_destroy(client);
    }
    return status;
}

const vexi_s3_settings *vexi_s3_client_settings(const vexi_s3_client *client) {
    return &client->settings;
}

const vexi_s3_address *vexi_s3_client_address(const vexi_s3_client *client) {
    return &client->address;
}

vexi_s3_health vexi_s3_client_health(vexi_s3_client *client) {
    (void)pthread_mutex_lock(&client->mutex);
    vexi_s3_health health = client->health;
    (void)pthread_mutex_unlock(&client->mutex);
    return health;
}

void vexi_s3_client_counters(vexi_s3_client *client, vexi_s3_counters out[VEXI_S3_KIND_COUNT]) {
    (void)pthread_mutex_lock(&client->mutex);
    memcpy(out, client->counters, sizeof client->counters);
    (void)pthread_mutex_unlock(&client->mutex);
}
