/* The S3 store against a real server: what the common suite (store_test.c) does not ask. Messages
 * for wrong settings, uploads in parts, requests counted, and faults of a network put between by a
 * proxy: errors at 30 %, answers that are lost, cut, late or never come, a server that ignores
 * ranges, an object that changes while it is read. */
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <pthread.h>

#include "check.h"
#include "store/s3_internal.h"
#include "store/test_s3_proxy.h"

static vex_test_s3 server; /* for the whole program */

/* Settings for a store behind the proxy that tries again quickly. */
static vexi_s3_settings *quick_settings(const vex_test_proxy *proxy) {
    static vexi_s3_settings settings;
    settings = server.settings;
    snprintf(settings.endpoint, sizeof settings.endpoint, "http://127.0.0.1:%u", proxy->port);
    char id[37];
    vexi_random_uuid(vex_test_env(), id);
    snprintf(settings.prefix, sizeof settings.prefix, "faults-%s", id);
    settings.backoff_base_ms = 1;
    settings.backoff_max_ms = 20;
    settings.attempt_count_max = 14;
    settings.stall_timeout_ms = 5000;
    return &settings;
}

static vexi_store *create(const vexi_s3_settings *settings) {
    vexi_store *store = NULL;
    CHECK_OK(vexi_store_s3_create(vex_test_env(), settings, &store, &err));
    return store;
}

static vexi_span text_span(const char *text) {
    return vexi_span_of(text, strlen(text));
}

static void check_holds(vexi_store *store, const char *name, const char *text) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_span all;
    CHECK_OK(vexi_store_get_all(store, name, 1 << 20, &arena, &all, &err));
    CHECK(all.size == strlen(text) && memcmp(all.data, text, all.size) == 0);
    vexi_arena_deinit(&arena);
}

static vexi_s3_counters counters_of(vexi_store *store, vexi_s3_kind kind) {
    vexi_s3_counters all[VEXI_S3_KIND_COUNT];
    vexi_store_s3_counters(store, all);
    return all[kind];
}

/* ---- A good server --------------------------------------------------------------------------- */

TEST(check_and_probe) {
    vexi_store *store = vex_test_s3_store(&server, "probe");
    CHECK_OK(vexi_store_s3_check(store, &err));
    CHECK_OK(vexi_store_s3_probe(store, &err));
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_listing listing;
    CHECK_OK(vexi_store_list(store, "", NULL, false, &arena, &listing, &err));
    CHECK_EQ(listing.count, 0); /* it leaves nothing behind */
    vexi_arena_deinit(&arena);
    vexi_s3_counters puts = counters_of(store, VEXI_S3_PUT);
    CHECK(puts.requests >= 4 * 9 && puts.latency_count == puts.requests && puts.retries == 0);
    CHECK(puts.sent_bytes >= 4 * 9 * 36);
    vexi_store_destroy(store);
}

static void check_refused(vexi_s3_settings *settings, const char *expected) {
    settings->attempt_count_max = 2;
    settings->backoff_base_ms = 1;
    settings->connect_timeout_ms = 1000;
    vexi_store *store = create(settings);
    vex_error err;
    vex_status status = vexi_store_s3_check(store, &err);
    printf("      %s\n", err.message);
    CHECK(status != VEX_OK && err.status == status);
    CHECK(strstr(err.message, expected) != NULL);
    CHECK(strstr(err.message, settings->secret_key) == NULL && strchr(err.message, '\n') == NULL);
    vexi_store_destroy(store);
}

TEST(wrong_settings) {
    vexi_s3_settings s = server.settings;
    snprintf(s.bucket, sizeof s.bucket, "there-is-no-such-bucket");
    check_refused(&s, "no bucket 'there-is-no-such-bucket'");
    s = server.settings;
    snprintf(s.secret_key, sizeof s.secret_key, "another-secret");
    check_refused(&s, "AWS_SECRET_ACCESS_KEY");
    s = server.settings;
    snprintf(s.access_key, sizeof s.access_key, "nobody");
    check_refused(&s, "AWS_ACCESS_KEY_ID");
    s = server.settings;
    snprintf(s.endpoint, sizeof s.endpoint, "http://no-such-host.invalid:1");
    check_refused(&s, "no host of the name");
    s = server.settings;
    snprintf(s.endpoint, sizeof s.endpoint, "http://127.0.0.1:%u", vex_test_free_port());
    check_refused(&s, "nothing answers at");
    if (strncmp(server.settings.endpoint, "http://", 7) == 0) {
        s = server.settings;
        snprintf(s.endpoint, sizeof s.endpoint, "https://%.400s", server.settings.endpoint + 7);
        check_refused(&s, "TLS");
    }
}

/* A wall clock that is an hour late. */
static int64_t late_wall_us(void *context) {
    return vex_test_env()->wall_us(context) - INT64_C(3600) * 1000000;
}

TEST(clock_skew) {
    vexi_env env = *vex_test_env();
    env.wall_us = late_wall_us;
    vexi_store *store = NULL;
    CHECK_OK(vexi_store_s3_create(&env, &server.settings, &store, &err));
    vex_error err;
    CHECK(vexi_store_s3_check(store, &err) == VEX_INVALID);
    printf("      %s\n", err.message);
    CHECK(strstr(err.message, "clock") != NULL && strstr(err.message, "behind") != NULL);
    vexi_store_destroy(store);
}

TEST(large_objects) {
    vexi_s3_settings settings = server.settings;
    settings.part_size = 5 << 20; /* the least that S3 allows */
    settings.multipart_size_min = 6 << 20;
    snprintf(settings.prefix, sizeof settings.prefix, "large");
    vexi_store *store = create(&settings);
    enum { SIZE = (12 << 20) + 12345 };
    uint8_t *data = malloc(SIZE);
    uint64_t random = vex_test_seed(41);
    for (size_t i = 0; i < SIZE; i++) {
        data[i] = (uint8_t)(i * 31 + (i >> 12));
    }
    const vexi_span parts[] = {vexi_span_of(data, 1), vexi_span_of(data + 1, 7 << 20),
                               vexi_span_of(data, 0),
                               vexi_span_of(data + 1 + (7 << 20), SIZE - 1 - (7 << 20))};
    CHECK_OK(vexi_store_put(store, "a/large", parts, 4, &err));
    CHECK_EQ(counters_of(store, VEXI_S3_MULTIPART).requests, 5); /* begin, three parts, end */
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_span all;
    CHECK_OK(vexi_store_get_all(store, "a/large", SIZE, &arena, &all, &err));
    CHECK(all.size == SIZE && memcmp(all.data, data, SIZE) == 0);
    CHECK_FAILS(VEX_LIMIT, vexi_store_get_all(store, "a/large", SIZE - 1, &arena, &all, &err));
    vexi_arena_deinit(&arena);
    for (int trial = 0; trial < 20; trial++) {
        vexi_range ranges[20];
        for (size_t i = 0; i < 20; i++) {
            size_t size = vex_test_below(&random, i == 0 ? 6 << 20 : 5000);
            uint64_t offset = vex_test_below(&random, SIZE - size + 1);
            ranges[i] = (vexi_range){.offset = offset, .size = size, .target = malloc(size + 1)};
        }
        CHECK_OK(vexi_store_get(store, "a/large", ranges, 20, &err));
        for (size_t i = 0; i < 20; i++) {
            CHECK(memcmp(ranges[i].target, data + ranges[i].offset, ranges[i].size) == 0);
            free(ranges[i].target);
        }
    }
    free(data);
    CHECK_OK(vexi_store_remove(store, "a/large", &err));
    vexi_store_destroy(store);
}

TEST(near_ranges_are_one_request) {
    vexi_s3_settings settings = server.settings;
    settings.gap_size_max = 1000;
    snprintf(settings.prefix, sizeof settings.prefix, "near");
    vexi_store *store = create(&settings);
    static uint8_t data[100000], out[10];
    vexi_span part = vexi_span_of(data, sizeof data);
    CHECK_OK(vexi_store_put(store, "x", &part, 1, &err));
    vexi_range ranges[10];
    for (size_t i = 0; i < 10; i++) {
        ranges[i] = (vexi_range){.offset = 900 * i, .size = 10, .target = out};
    }
    CHECK_OK(vexi_store_get(store, "x", ranges, 10, &err));
    CHECK_EQ(counters_of(store, VEXI_S3_GET).requests, 1);
    CHECK_EQ(counters_of(store, VEXI_S3_GET).received_bytes, 900 * 9 + 10);
    for (size_t i = 0; i < 10; i++) {
        ranges[i].offset = 9000 * i;
    }
    CHECK_OK(vexi_store_get(store, "x", ranges, 10, &err));
    CHECK_EQ(counters_of(store, VEXI_S3_GET).requests, 11);
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_span all;
    CHECK_OK(vexi_store_get_all(store, "x", sizeof data, &arena, &all, &err));
    CHECK_EQ(counters_of(store, VEXI_S3_GET).requests, 12); /* and no HEAD */
    CHECK_EQ(counters_of(store, VEXI_S3_HEAD).requests, 0);
    vexi_arena_deinit(&arena);
    CHECK_OK(vexi_store_remove(store, "x", &err));
    vexi_store_destroy(store);
}

/* More names than one page of a listing, and than one request of a deletion. */
TEST(many_names) {
    enum { COUNT = 1100 };
    vexi_store *store = vex_test_s3_store(&server, "many");
    static char names[COUNT][32];
    static const char *pointers[COUNT];
    vexi_span part = text_span("x");
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "log/%020zu.json", i);
        pointers[i] = names[i];
        CHECK_OK(vexi_store_put(store, names[i], &part, 1, &err));
    }
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_listing listing;
    CHECK_OK(vexi_store_list(store, "log/", NULL, false, &arena, &listing, &err));
    CHECK_EQ(listing.count, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(strcmp(listing.entries[i].name, names[i]) == 0);
    }
    uint64_t before = counters_of(store, VEXI_S3_LIST).requests;
    CHECK_OK(vexi_store_list(store, "log/", names[COUNT - 6], false, &arena, &listing, &err));
    CHECK_EQ(listing.count, 5);
    CHECK_EQ(counters_of(store, VEXI_S3_LIST).requests, before + 1);
    CHECK_OK(vexi_store_remove_many(store, pointers, COUNT, &err));
    CHECK_EQ(counters_of(store, VEXI_S3_DELETE).requests, 2);
    CHECK_OK(vexi_store_list(store, "", NULL, false, &arena, &listing, &err));
    CHECK_EQ(listing.count, 0);
    vexi_arena_deinit(&arena);
    vexi_store_destroy(store);
}

/* ---- TLS ------------------------------------------------------------------------------------- */

/* A key and a certificate for 127.0.0.1 that vouches for itself. */
static void make_certificate(const char *certificate_path, const char *key_path) {
    EVP_PKEY *key = EVP_RSA_gen(2048);
    X509 *certificate = X509_new();
    CHECK(key != NULL && certificate != NULL);
    CHECK(X509_set_version(certificate, 2) == 1);
    CHECK(ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1) == 1);
    CHECK(X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) != NULL);
    CHECK(X509_gmtime_adj(X509_getm_notAfter(certificate), 3600) != NULL);
    CHECK(X509_set_pubkey(certificate, key) == 1);
    X509_NAME *name = X509_get_subject_name(certificate);
    CHECK(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"127.0.0.1",
                                     -1, -1, 0) == 1);
    CHECK(X509_set_issuer_name(certificate, name) == 1);
    const struct {
        int nid;
        const char *value;
    } extensions[] = {{NID_basic_constraints, "critical,CA:TRUE"},
                      {NID_subject_alt_name, "IP:127.0.0.1"}};
    for (size_t i = 0; i < 2; i++) {
        X509_EXTENSION *extension =
            X509V3_EXT_conf_nid(NULL, NULL, extensions[i].nid, extensions[i].value);
        CHECK(extension != NULL && X509_add_ext(certificate, extension, -1) == 1);
        X509_EXTENSION_free(extension);
    }
    CHECK(X509_sign(certificate, key, EVP_sha256()) > 0);
    FILE *file = fopen(certificate_path, "w");
    CHECK(file != NULL && PEM_write_X509(file, certificate) == 1 && fclose(file) == 0);
    file = fopen(key_path, "w");
    CHECK(file != NULL && PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1 &&
          fclose(file) == 0);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

TEST(tls) {
    vex_test_folder folder = vex_test_folder_make();
    char certificate[128], key[128];
    snprintf(certificate, sizeof certificate, "%s/certificate.pem", folder.path);
    snprintf(key, sizeof key, "%s/key.pem", folder.path);
    make_certificate(certificate, key);
    static vex_test_s3 secure;
    memset(&secure, 0, sizeof secure);
    secure.settings.seed = 12;
    vex_test_s3_spawn(&secure, getenv("VEXLAKE_VERSITYGW"), certificate, key);
    vexi_s3_settings s = secure.settings;
    check_refused(&s, "is not trusted");
    snprintf(s.ca_file, sizeof s.ca_file, "%s/absent", folder.path);
    check_refused(&s, "cannot be read");
    snprintf(s.ca_file, sizeof s.ca_file, "%s", certificate);
    for (int i = 0; i < 2; i++) {
        vexi_store *store = create(&s);
        vexi_span one = text_span("over TLS");
        CHECK_OK(vexi_store_s3_check(store, &err));
        CHECK_OK(vexi_store_put(store, "x", &one, 1, &err));
        check_holds(store, "x", "over TLS");
        vexi_store_destroy(store);
        s.ca_file[0] = '\0'; /* the second time by explicit choice */
        s.insecure = true;
    }
    vex_test_s3_close(&secure);
    vex_test_folder_remove(&folder);
}

/* ---- Faults ---------------------------------------------------------------------------------- */

TEST(lost_answers) {
    vex_test_proxy proxy;
    vex_test_proxy_open(&proxy, server.port, 0, 1);
    vexi_s3_settings *settings = quick_settings(&proxy);
    vexi_store *store = create(settings);
    vexi_span one = text_span("one"), two = text_span("two");
    /* Ours although the second attempt is told that it is there. */
    atomic_store(&proxy.lose_next, 1);
    CHECK_OK(vexi_store_put_if_absent(store, "a", &one, 1, &err));
    CHECK_EQ(counters_of(store, VEXI_S3_PUT).requests, 2);
    /* Another's although our first answer was lost. */
    atomic_store(&proxy.lose_next, 1);
    CHECK_FAILS(VEX_EXISTS, vexi_store_put_if_absent(store, "a", &two, 1, &err));
    /* Equal bytes are not ours either. */
    CHECK_FAILS(VEX_EXISTS, vexi_store_put_if_absent(store, "a", &one, 1, &err));
    check_holds(store, "a", "one");
    /* Without retries the object is looked for. */
    settings->attempt_count_max = 1;
    vexi_store *once = create(settings);
    atomic_store(&proxy.lose_next, 1);
    CHECK_OK(vexi_store_put_if_absent(once, "b", &one, 1, &err));
    atomic_store(&proxy.lose_next, 1);
    CHECK_FAILS(VEX_EXISTS, vexi_store_put_if_absent(once, "b", &two, 1, &err));
    /* Refused for an object that nobody can see yet: asked again, until one of the two is there. */
    atomic_store(&proxy.refuse_next, 3);
    CHECK_OK(vexi_store_put_if_absent(store, "hidden", &one, 1, &err));
    CHECK_EQ(atomic_load(&proxy.refuse_next), 0);
    check_holds(store, "hidden", "one");
    atomic_store(&proxy.refuse_next, 1000);
    CHECK_FAILS(VEX_IO, vexi_store_put_if_absent(store, "never", &one, 1, &err));
    CHECK(atomic_load(&proxy.refuse_next) < 1000);
    atomic_store(&proxy.refuse_next, 0);
    /* Where nothing can be learnt the outcome is unknown. */
    atomic_store(&proxy.loses, true);
    CHECK_FAILS(VEX_UNKNOWN_OUTCOME, vexi_store_put_if_absent(once, "c", &one, 1, &err));
    atomic_store(&proxy.loses, false);
    check_holds(once, "c", "one");
    /* It did not get there, but may still be on its way. */
    atomic_store(&proxy.error_next, 1);
    CHECK_FAILS(VEX_UNKNOWN_OUTCOME, vexi_store_put_if_absent(once, "d", &one, 1, &err));
    vexi_store_destroy(once);
    vexi_store_destroy(store);
    vex_test_proxy_close(&proxy);
}

static void fill(uint8_t *data, size_t size, uint64_t seed) {
    for (size_t i = 0; i < size; i++) {
        data[i] = (uint8_t)(vexi_random_mix(seed + i / 8) >> (i % 8 * 8));
    }
}

/* Everything at once, at 30 % of errors: every call succeeds in the end and every byte is right. */
TEST(errors_everywhere) {
    uint64_t seed = vex_test_seed(42);
    vex_test_proxy proxy;
    vex_test_proxy_open(&proxy, server.port, 0, seed);
    vexi_s3_settings *settings = quick_settings(&proxy);
    settings->gap_size_max = 100;
    vexi_store *store = create(settings);
    atomic_store(&proxy.error_percent, 15);
    atomic_store(&proxy.slow_percent, 2);
    atomic_store(&proxy.cut_percent, 8);
    atomic_store(&proxy.lose_percent, 8);
    uint64_t random = seed;
    enum { SIZE = 60000, COUNT = 25 };
    static uint8_t data[SIZE], found[8][SIZE];
    for (uint64_t i = 0; i < vex_test_effort(COUNT); i++) {
        char name[64];
        snprintf(name, sizeof name, "o/%03llu", (unsigned long long)i);
        fill(data, SIZE, i);
        vexi_span parts[] = {vexi_span_of(data, 100), vexi_span_of(data + 100, SIZE - 100)};
        if (i % 2 == 0) {
            CHECK_OK(vexi_store_put(store, name, parts, 2, &err));
        } else {
            CHECK_OK(vexi_store_put_if_absent(store, name, parts, 2, &err));
        }
        vexi_range ranges[8];
        for (size_t j = 0; j < 8; j++) {
            size_t size = 1 + vex_test_below(&random, SIZE / 10);
            ranges[j] = (vexi_range){.offset = vex_test_below(&random, SIZE - size + 1),
                                     .size = size,
                                     .target = found[j]};
        }
        CHECK_OK(vexi_store_get(store, name, ranges, 8, &err));
        for (size_t j = 0; j < 8; j++) {
            CHECK(memcmp(found[j], data + ranges[j].offset, ranges[j].size) == 0);
        }
        uint64_t size = 0;
        CHECK_OK(vexi_store_size(store, name, &size, &err));
        CHECK_EQ(size, SIZE);
        if (i % 5 == 4) {
            CHECK_OK(vexi_store_remove(store, name, &err));
            CHECK_FAILS(VEX_NOT_FOUND, vexi_store_size(store, name, &size, &err));
        }
    }
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_listing listing;
    CHECK_OK(vexi_store_list(store, "o/", NULL, false, &arena, &listing, &err));
    CHECK_EQ(listing.count, vex_test_effort(COUNT) - vex_test_effort(COUNT) / 5);
    vexi_arena_deinit(&arena);
    vexi_s3_counters gets = counters_of(store, VEXI_S3_GET);
    CHECK(gets.retries > 0 && gets.errors >= gets.retries);
    CHECK_EQ(vexi_store_s3_health(store).away_count, 0);
    vexi_store_destroy(store);
    vex_test_proxy_close(&proxy);
}

TEST(ranges_ignored) {
    vex_test_proxy proxy;
    vex_test_proxy_open(&proxy, server.port, 0, 1);
    vexi_s3_settings *settings = quick_settings(&proxy);
    settings->gap_size_max = 1;
    vexi_store *store = create(settings);
    static uint8_t data[300000], a[1000], b[2000];
    fill(data, sizeof data, 9);
    vexi_span part = vexi_span_of(data, sizeof data);
    CHECK_OK(vexi_store_put(store, "x", &part, 1, &err));
    atomic_store(&proxy.drops_range, true);
    vexi_range ranges[] = {{.offset = 0, .size = sizeof a, .target = a},
                           {.offset = 298000, .size = sizeof b, .target = b}};
    CHECK_OK(vexi_store_get(store, "x", ranges, 2, &err));
    CHECK(memcmp(a, data, sizeof a) == 0 && memcmp(b, data + 298000, sizeof b) == 0);
    ranges[1].offset++;
    CHECK_FAILS(VEX_CORRUPT, vexi_store_get(store, "x", ranges, 2, &err));
    vexi_store_destroy(store);
    vex_test_proxy_close(&proxy);
}

TEST(object_changes_while_read) {
    vex_test_proxy proxy;
    vex_test_proxy_open(&proxy, server.port, 0, 1);
    vexi_s3_settings *settings = quick_settings(&proxy);
    settings->gap_size_max = 1;
    vexi_store *store = create(settings);
    static uint8_t data[1000], a[10], b[10];
    vexi_span part = vexi_span_of(data, sizeof data);
    CHECK_OK(vexi_store_put(store, "x", &part, 1, &err));
    vexi_range ranges[] = {{.offset = 0, .size = sizeof a, .target = a},
                           {.offset = 500, .size = sizeof b, .target = b}};
    CHECK_OK(vexi_store_get(store, "x", ranges, 2, &err));
    atomic_store(&proxy.breaks_etag, true);
    CHECK_FAILS(VEX_CONFLICT, vexi_store_get(store, "x", ranges, 2, &err));
    vexi_store_destroy(store);
    vex_test_proxy_close(&proxy);
}

TEST(stall_and_throttle) {
    vex_test_proxy proxy;
    vex_test_proxy_open(&proxy, server.port, 0, 1);
    vexi_s3_settings *settings = quick_settings(&proxy);
    settings->stall_timeout_ms = 300;
    vexi_store *store = create(settings);
    vexi_span one = text_span("one");
    atomic_store(&proxy.hang_next, 2);
    CHECK_OK(vexi_store_put(store, "x", &one, 1, &err));
    CHECK_EQ(counters_of(store, VEXI_S3_PUT).retries, 2);
    atomic_store(&proxy.slow_percent, 100);
    vex_error err;
    CHECK(vexi_store_put(store, "x", &one, 1, &err) == VEXI_S3_UNAVAILABLE);
    CHECK(strstr(err.message, "overloaded") != NULL);
    CHECK_EQ(counters_of(store, VEXI_S3_PUT).throttled, settings->attempt_count_max);
    atomic_store(&proxy.slow_percent, 0);
    CHECK_OK(vexi_store_put(store, "x", &one, 1, &err));
    vexi_store_destroy(store);
    vex_test_proxy_close(&proxy);
}

/* Second requests beside slow ones: they are sent, and what they bring is right. */
TEST(hedging) {
    vex_test_proxy proxy;
    vex_test_proxy_open(&proxy, server.port, 0, 5);
    vexi_s3_settings *settings = quick_settings(&proxy);
    settings->hedge_percentile = 90;
    vexi_store *store = create(settings);
    static uint8_t data[20000], found[1000];
    fill(data, sizeof data, 3);
    vexi_span part = vexi_span_of(data, sizeof data);
    CHECK_OK(vexi_store_put(store, "x", &part, 1, &err));
    for (size_t i = 0; i < 300; i++) {
        atomic_store(&proxy.delay_percent, i > 200 ? 10 : 0);
        vexi_range range = {.offset = i * 50, .size = sizeof found, .target = found};
        memset(found, 0, sizeof found);
        CHECK_OK(vexi_store_get(store, "x", &range, 1, &err));
        CHECK(memcmp(found, data + range.offset, sizeof found) == 0);
    }
    vexi_s3_counters gets = counters_of(store, VEXI_S3_GET);
    printf("      %llu of %llu GETs were second ones\n", (unsigned long long)gets.hedges,
           (unsigned long long)gets.requests);
    CHECK(gets.hedges > 0 && gets.hedges <= 300 / 20 + 1);
    CHECK_EQ(gets.requests, 300 + gets.hedges);
    vexi_store_destroy(store);
    vex_test_proxy_close(&proxy);
}

/* The server is away: calls fail quickly and say so; it comes back: they work again. */
TEST(server_away_and_back) {
    vex_test_proxy proxy;
    vex_test_proxy_open(&proxy, server.port, 0, 1);
    uint16_t port = proxy.port;
    vexi_s3_settings *settings = quick_settings(&proxy);
    settings->retry_budget = 5;
    vexi_store *store = create(settings);
    vexi_span one = text_span("one");
    CHECK_OK(vexi_store_put(store, "x", &one, 1, &err));
    vex_test_proxy_close(&proxy);
    for (int i = 0; i < 10; i++) {
        vex_error err;
        uint64_t size;
        CHECK(vexi_store_size(store, "x", &size, &err) == VEXI_S3_UNAVAILABLE);
        CHECK(strncmp(err.message, "store unavailable", 17) == 0);
        /* Never sent, so never in doubt. */
        CHECK(vexi_store_put_if_absent(store, "y", &one, 1, &err) == VEXI_S3_UNAVAILABLE);
    }
    CHECK(counters_of(store, VEXI_S3_HEAD).requests + counters_of(store, VEXI_S3_PUT).requests <=
          1 + 10 * 2 + 5);
    vex_test_proxy_open(&proxy, server.port, port, 1);
    vex_status status = VEXI_S3_UNAVAILABLE;
    for (int i = 0; i < 200 && status != VEX_OK; i++) {
        uint64_t size;
        status = vexi_store_size(store, "x", &size, NULL);
        (void)usleep(50000);
    }
    CHECK_EQ(status, VEX_OK);
    check_holds(store, "x", "one");
    vexi_store_destroy(store);
    vex_test_proxy_close(&proxy);
}

/* ---- The breaker ----------------------------------------------------------------------------- */

static vexi_s3_settings *breaker_settings(const vex_test_proxy *proxy) {
    vexi_s3_settings *settings = quick_settings(proxy);
    settings->suspect_ms = 800;
    settings->probe_interval_ms = 50;
    settings->probe_timeout_ms = 1500; /* a busy machine answers late, and is there all the same */
    settings->stall_timeout_ms = 60000;
    return settings;
}

static uint64_t requests_but_probes(vexi_store *store) {
    return counters_of(store, VEXI_S3_GET).requests + counters_of(store, VEXI_S3_PUT).requests;
}

/* Until the store says that the server is away, or is not. */
static void await_health(vexi_store *store, bool is_away) {
    for (int i = 0; vexi_store_s3_health(store).is_away != is_away; i++) {
        CHECK(i < 2000);
        (void)usleep(10000);
    }
}

/* A server that hangs, or answers 500 to all: who waits is told before the stall timeout of a
 * minute; then everybody is told at once, without a request; it recovers although nobody asks. */
TEST(breaker) {
    vex_test_proxy proxy;
    vex_test_proxy_open(&proxy, server.port, 0, 1);
    vexi_store *store = create(breaker_settings(&proxy));
    vexi_span one = text_span("one");
    CHECK_OK(vexi_store_put(store, "x", &one, 1, &err));
    for (unsigned round = 1; round <= 4; round++) {
        vex_error err;
        uint8_t byte;
        vexi_range range = {.offset = 0, .size = 1, .target = &byte};
        if (round % 2 == 1) {
            atomic_store(&proxy.hangs, true);
        } else {
            atomic_store(&proxy.error_percent, 100);
        }
        CHECK(!vexi_store_s3_health(store).is_away);
        if (round < 3) {
            CHECK(vexi_store_get(store, "x", &range, 1, &err) == VEXI_S3_UNAVAILABLE);
        } else { /* a put may have arrived */
            CHECK_FAILS(VEX_UNKNOWN_OUTCOME, vexi_store_put_if_absent(store, "y", &one, 1, &err));
        }
        await_health(store, true); /* 500s use up a call's attempts before */
        uint64_t requests = requests_but_probes(store);
        for (int i = 0; i < 50; i++) {
            CHECK(vexi_store_get(store, "x", &range, 1, &err) == VEXI_S3_UNAVAILABLE);
            CHECK(strncmp(err.message, "store unavailable: x: ", 22) == 0);
            CHECK(vexi_store_put_if_absent(store, "z", &one, 1, &err) == VEXI_S3_UNAVAILABLE);
        }
        CHECK_EQ(requests_but_probes(store), requests);
        CHECK_EQ(vexi_store_s3_health(store).away_count, round);
        atomic_store(&proxy.hangs, false);
        atomic_store(&proxy.error_percent, 0);
        await_health(store, false);
        check_holds(store, "x", "one");
        CHECK_FAILS(VEX_NOT_FOUND, vexi_store_get(store, "z", &range, 1, &err));
    }
    vexi_store_destroy(store);
    vex_test_proxy_close(&proxy);
}

/* One request that hangs beside others that are answered, and one that is slow to begin, open
 * nothing. */
TEST(one_slow_answer) {
    vex_test_proxy proxy;
    vex_test_proxy_open(&proxy, server.port, 0, 1);
    vexi_s3_settings *settings = breaker_settings(&proxy);
    settings->suspect_ms = 300;
    settings->stall_timeout_ms = 1500;
    vexi_store *store = create(settings);
    vexi_span one = text_span("one");
    CHECK_OK(vexi_store_put(store, "x", &one, 1, &err));
    for (int i = 0; i < 3; i++) {
        atomic_store(&proxy.hang_next, 1);
        check_holds(store, "x", "one"); /* by a second attempt, five suspicions later */
    }
    CHECK_EQ(vexi_store_s3_health(store).away_count, 0);
    vexi_store_destroy(store);
    vex_test_proxy_close(&proxy);
}

/* ---- Destroying with requests in flight ------------------------------------------------------ */

typedef struct waiter {
    vexi_store *store;
    vex_status status;
} waiter;

static void *wait_in_get(void *argument) {
    waiter *self = argument;
    uint8_t out[100];
    vexi_range ranges[] = {{.offset = 0, .size = 10, .target = out},
                           {.offset = 200000, .size = 10, .target = out + 10}};
    self->status = vexi_store_get(self->store, "x", ranges, 2, NULL);
    return NULL;
}

static void *wait_in_put(void *argument) {
    waiter *self = argument;
    vexi_span part = text_span("bytes");
    self->status = vexi_store_put_if_absent(self->store, "y", &part, 1, NULL);
    return NULL;
}

TEST(destroy_in_flight) {
    vex_test_proxy proxy;
    vex_test_proxy_open(&proxy, server.port, 0, 1);
    vexi_store *store = create(quick_settings(&proxy));
    atomic_store(&proxy.hangs, true);
    enum { WAITERS = 6 };
    pthread_t threads[WAITERS];
    waiter waiters[WAITERS];
    for (size_t i = 0; i < WAITERS; i++) {
        waiters[i] = (waiter){.store = store};
        CHECK_EQ(pthread_create(&threads[i], NULL, i == 0 ? wait_in_put : wait_in_get, &waiters[i]),
                 0);
    }
    while (atomic_load(&proxy.number) < 1 + 2 * (WAITERS - 1)) {
        (void)usleep(1000);
    }
    vexi_store_destroy(store);
    for (size_t i = 0; i < WAITERS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK_EQ(waiters[i].status, i == 0 ? VEX_UNKNOWN_OUTCOME : VEX_CANCELLED);
    }
    vex_test_proxy_close(&proxy);
}

/* ---- Without memory -------------------------------------------------------------------------- */

typedef struct failing_env {
    vexi_env env;
    atomic_uint_fast64_t calls;
    uint64_t fail_at;
} failing_env;

static void *failing_allocate(void *context, size_t alignment, size_t size) {
    failing_env *self = context;
    const vexi_env *system = vex_test_env();
    bool fails = atomic_fetch_add(&self->calls, 1) + 1 == self->fail_at;
    return fails ? NULL : system->allocate(system->context, alignment, size);
}

static void failing_release(void *context, void *pointer) {
    (void)context;
    vex_test_env()->release(vex_test_env()->context, pointer);
}

static void failing_random(void *context, void *out, size_t size) {
    (void)context;
    vex_test_env()->random_fill(vex_test_env()->context, out, size);
}

static uint64_t failing_monotonic(void *context) {
    (void)context;
    return vexi_monotonic_ns(vex_test_env());
}

static int64_t failing_wall(void *context) {
    (void)context;
    return vexi_wall_us(vex_test_env());
}

static bool worked(vex_status status) {
    CHECK(status == VEX_OK || status == VEX_MEMORY);
    return status == VEX_OK;
}

/* Every allocation fails once: a status, nothing leaked, and what was said to be done is done. */
TEST(allocations_fail) {
    uint64_t n = 1;
    bool failed = true;
    for (; failed; n++) {
        failing_env self = {.env = *vex_test_env(), .fail_at = n};
        self.env.context = &self;
        self.env.allocate = failing_allocate;
        self.env.release = failing_release;
        self.env.random_fill = failing_random;
        self.env.monotonic_ns = failing_monotonic;
        self.env.wall_us = failing_wall;
        vexi_s3_settings settings = server.settings;
        char id[37];
        vexi_random_uuid(vex_test_env(), id);
        snprintf(settings.prefix, sizeof settings.prefix, "memory-%s", id);
        settings.gap_size_max = 1;
        vexi_store *store = NULL;
        if (worked(vexi_store_s3_create(&self.env, &settings, &store, NULL))) {
            vexi_span part = text_span("0123456789");
            bool put = worked(vexi_store_put(store, "a", &part, 1, NULL));
            vex_status absent = vexi_store_put_if_absent(store, "b", &part, 1, NULL);
            CHECK(absent == VEX_OK || absent == VEX_MEMORY || absent == VEX_UNKNOWN_OUTCOME);
            if (absent == VEX_OK) {
                absent = vexi_store_put_if_absent(store, "b", &part, 1, NULL);
                /* VEX_IO: refused, and no memory to look at what is there. */
                CHECK(absent == VEX_EXISTS || absent == VEX_MEMORY || absent == VEX_IO ||
                      absent == VEX_UNKNOWN_OUTCOME);
            }
            char found[2];
            vexi_range ranges[] = {{.offset = 0, .size = 1, .target = (uint8_t *)found},
                                   {.offset = 9, .size = 1, .target = (uint8_t *)found + 1}};
            if (put && worked(vexi_store_get(store, "a", ranges, 2, NULL))) {
                CHECK(found[0] == '0' && found[1] == '9');
            }
            vexi_arena arena;
            vexi_arena_init(&arena, &self.env);
            vexi_listing listing;
            if (worked(vexi_store_list(store, "", NULL, true, &arena, &listing, NULL)) && put) {
                CHECK(listing.count >= 1);
            }
            vexi_span all;
            if (put && worked(vexi_store_get_all(store, "a", 100, &arena, &all, NULL))) {
                CHECK_EQ(all.size, 10);
            }
            vexi_arena_deinit(&arena);
            const char *names[] = {"a", "b"};
            (void)worked(vexi_store_remove_many(store, names, 2, NULL));
        }
        vexi_store_destroy(store);
        failed = atomic_load(&self.calls) >= n;
    }
    printf("    %llu allocations\n", (unsigned long long)n - 2);
    CHECK(n > 40);
}

int main(void) {
    vex_test_s3_open(&server);
    if (server.is_there) {
        RUN(check_and_probe);
        RUN(wrong_settings);
        RUN(clock_skew);
        RUN(large_objects);
        RUN(near_ranges_are_one_request);
        RUN(many_names);
        RUN(allocations_fail);
    }
    if (server.pid != 0) { /* the proxy stands before our own */
        RUN(tls);
        RUN(lost_answers);
        RUN(errors_everywhere);
        RUN(ranges_ignored);
        RUN(object_changes_while_read);
        RUN(stall_and_throttle);
        RUN(hedging);
        RUN(server_away_and_back);
        RUN(breaker);
        RUN(one_slow_answer);
        RUN(destroy_in_flight);
    }
    vex_test_s3_close(&server);
    return 0;
}
