/* Pace: when a failed request is tried again, how many retries there are at all, and how many
 * requests may be in flight.
 *
 * Backoff is exponential with full jitter (Brooker, "Exponential Backoff And Jitter", AWS
 * Architecture Blog, 2015): attempt n waits a random time below base * 2^(n-2), so that clients who
 * failed together do not return together. A server's Retry-After is the floor of it. The random
 * numbers come from a seed: a schedule can be repeated.
 *
 * Budget. Retries of a client that meets a broken server multiply the server's load (Beyer et al.,
 * Site Reliability Engineering, chapter 22). So every retry takes a token and every success gives
 * one back, up to the budget: at 30 % errors, where a success has needed 0.43 retries, tokens never
 * run out; when nothing works they end after `retry_budget` retries of the whole store, and from
 * then on a request fails after its first attempt.
 *
 * Window. Requests in flight rise by one per window of successes and are halved by "slow down", at
 * most once a second (Chiu and Jain, 1989): the whole client slows down, not one request. */
#include "base/random.h"
#include "store/s3_internal.h"

enum { LATENCY_SAMPLES_MIN = 100 };

static const uint64_t second_ns = 1000000000u;
static const uint64_t millisecond_ns = 1000000u;

void vexi_s3_pace_init(vexi_s3_pace *pace, const vexi_s3_settings *settings, uint64_t seed) {
    *pace = (vexi_s3_pace){.random = seed,
                           .base_ms = settings->backoff_base_ms,
                           .max_ms = settings->backoff_max_ms,
                           .tokens = settings->retry_budget,
                           .tokens_max = settings->retry_budget,
                           .window = settings->connection_count_max,
                           .window_max = settings->connection_count_max};
}

uint64_t vexi_s3_pace_delay_ns(vexi_s3_pace *pace, uint32_t attempt, uint32_t retry_after_ms) {
    VEX_ASSERT(attempt >= 2);
    uint32_t shift = attempt - 2 < 20 ? attempt - 2 : 20;
    uint64_t bound_ms = (uint64_t)pace->base_ms << shift;
    if (bound_ms > pace->max_ms) {
        bound_ms = pace->max_ms;
    }
    uint64_t bound_ns = bound_ms * millisecond_ns;
    uint64_t jitter_ns = bound_ns == 0 ? 0 : vexi_random_next(&pace->random) % bound_ns;
    return (uint64_t)retry_after_ms * millisecond_ns + jitter_ns;
}

bool vexi_s3_pace_take(vexi_s3_pace *pace) {
    if (pace->tokens < 1.0) {
        return false;
    }
    pace->tokens -= 1.0;
    return true;
}

void vexi_s3_pace_success(vexi_s3_pace *pace) {
    pace->tokens = pace->tokens + 1.0 < pace->tokens_max ? pace->tokens + 1.0 : pace->tokens_max;
    double window = pace->window + 1.0 / pace->window;
    pace->window = window < pace->window_max ? window : pace->window_max;
}

void vexi_s3_pace_throttled(vexi_s3_pace *pace, uint64_t now_ns, uint32_t retry_after_ms) {
    if (pace->cut_ns == 0 || now_ns - pace->cut_ns >= second_ns) {
        pace->cut_ns = now_ns;
        pace->window = pace->window / 2 > 1.0 ? pace->window / 2 : 1.0;
    }
    uint64_t hold_ns = now_ns + (uint64_t)retry_after_ms * millisecond_ns;
    pace->hold_ns = hold_ns > pace->hold_ns ? hold_ns : pace->hold_ns;
}

void vexi_s3_pace_refill(vexi_s3_pace *pace) {
    pace->tokens = pace->tokens_max;
}

/* ---- Latencies ------------------------------------------------------------------------------- */

/* Four buckets to each doubling of microseconds: bucket 4 * e + q holds [2^e * (1 + q/4), ...) us;
 * 96 of them reach 2^24 us, 17 s. The last one holds all that is longer. */
uint64_t vexi_s3_latency_bound_ns(size_t bucket) {
    size_t next = bucket + 1;
    return 1000u * (((uint64_t)(4 + next % 4) << (next / 4)) / 4);
}

size_t vexi_s3_latency_bucket(uint64_t duration_ns) {
    uint64_t us = duration_ns / 1000;
    if (us == 0) {
        return 0;
    }
    size_t exponent = 63 - (size_t)__builtin_clzll(us);
    size_t quarter =
        exponent < 2 ? (size_t)(us << (2 - exponent)) & 3 : (size_t)(us >> (exponent - 2)) & 3;
    size_t bucket = 4 * exponent + quarter;
    return bucket < VEXI_S3_LATENCY_BUCKETS ? bucket : VEXI_S3_LATENCY_BUCKETS - 1;
}

uint64_t vexi_s3_latency_percentile_ns(const uint64_t *buckets, uint32_t percent) {
    uint64_t total = 0;
    for (size_t i = 0; i < VEXI_S3_LATENCY_BUCKETS; i++) {
        total += buckets[i];
    }
    if (total < LATENCY_SAMPLES_MIN) {
        return 0;
    }
    uint64_t below = 0;
    for (size_t i = 0; i < VEXI_S3_LATENCY_BUCKETS; i++) {
        below += buckets[i];
        if (below * 100 >= total * percent) {
            return vexi_s3_latency_bound_ns(i);
        }
    }
    return vexi_s3_latency_bound_ns(VEXI_S3_LATENCY_BUCKETS - 1);
}
