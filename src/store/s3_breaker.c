/* The breaker: whether the server is there at all.
 *
 * Retries carry a call over a second in which the server restarts; when it stays away they only
 * make every call slow, one after the other. Whoever asks then should be told at once, so that what
 * is cached can be answered beside it and a client can go elsewhere (Nygard, "Release It!", 2007,
 * chapter 5, calls this a circuit breaker).
 *
 *     closed ── nothing good for suspect_ns ──► a probe ── fails ──► open ──┐
 *       ▲  ▲                                      │                  ▲      │ every interval_ns
 *       │  └──────────── answered ────────────────┘                  └──────┤ a probe
 *       └────────────────────────────── answered ───────────────────────────┘
 *
 * Good is any answer that a working server gives, 404, 403 and "slow down" too, and any byte on its
 * way; a 5xx is none, nor is a connection that is refused, and silence is not. Time counts from the
 * first request that waits for an answer, so an idle store is never suspected; and it is counted
 * for the whole store, so that one slow answer among others does not matter, nor 500s to a third of
 * the requests.
 *
 * Suspicion alone opens nothing: a probe is a request of its own on a new connection, since kept
 * ones may be dead while the server is fine (a firewall that forgot them). No caller's request is
 * risked for it, neither to open nor to close.
 *
 * Tried and dropped: counting failures in a row, which says nothing when a server hangs and too
 * much when sixty requests are cut off together; letting one call through to see, which makes that
 * caller wait for a timeout, and never happens on a node that nobody asks. */
#include "store/s3_internal.h"

void vexi_s3_breaker_init(vexi_s3_breaker *breaker, uint64_t suspect_ns, uint64_t interval_ns) {
    *breaker = (vexi_s3_breaker){.suspect_ns = suspect_ns, .interval_ns = interval_ns};
}

void vexi_s3_breaker_waits(vexi_s3_breaker *breaker, uint64_t now_ns) {
    if (breaker->waiting_ns == 0) {
        breaker->waiting_ns = now_ns;
    }
}

void vexi_s3_breaker_good(vexi_s3_breaker *breaker, uint64_t now_ns, bool others_wait) {
    breaker->has_answered = true;
    breaker->waiting_ns = others_wait ? now_ns : 0;
}

uint64_t vexi_s3_breaker_due_ns(const vexi_s3_breaker *breaker) {
    if (breaker->is_probing) {
        return UINT64_MAX;
    }
    uint64_t again_ns = breaker->probed_ns + breaker->interval_ns;
    if (breaker->is_open) {
        return again_ns;
    }
    if (breaker->waiting_ns == 0) {
        return UINT64_MAX;
    }
    uint64_t due_ns = breaker->waiting_ns + breaker->suspect_ns;
    return due_ns > again_ns ? due_ns : again_ns;
}

void vexi_s3_breaker_probe(vexi_s3_breaker *breaker, uint64_t now_ns) {
    VEX_ASSERT(!breaker->is_probing);
    breaker->is_probing = true;
    breaker->probed_ns = now_ns;
}

vexi_s3_breaker_change vexi_s3_breaker_probed(vexi_s3_breaker *breaker, uint64_t now_ns,
                                              bool answered, bool others_wait) {
    bool was_open = breaker->is_open;
    breaker->is_probing = false;
    breaker->is_open = !answered;
    if (answered) {
        vexi_s3_breaker_good(breaker, now_ns, others_wait);
        return was_open ? VEXI_S3_BREAKER_CLOSED : VEXI_S3_BREAKER_SAME;
    }
    if (was_open) {
        return VEXI_S3_BREAKER_SAME;
    }
    breaker->open_count++;
    breaker->opened_ns = now_ns;
    return VEXI_S3_BREAKER_OPENED;
}
