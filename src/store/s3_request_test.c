/* Encoding, addresses, small texts, the plan of ranges and their scattering. */
#include "check.h"
#include "store/s3_internal.h"

static void check_encoded(const char *text, bool keep_slash, const char *expected) {
    vexi_buffer out;
    vexi_buffer_init(&out, vex_test_env(), 4096);
    vexi_s3_encode(&out, text, keep_slash);
    vexi_buffer_u8(&out, 0);
    CHECK_OK(vexi_buffer_check(&out, &err));
    CHECK(strcmp((const char *)out.data, expected) == 0);
    vexi_buffer_deinit(&out);
}

TEST(encoding) {
    check_encoded("", true, "");
    check_encoded("aZ09-._~", false, "aZ09-._~");
    check_encoded("a/b=c", true, "a/b%3Dc");
    check_encoded("a/b=c", false, "a%2Fb%3Dc");
    check_encoded("\x01 +*%\xc3\xa4", true, "%01%20%2B%2A%25%C3%A4");
    vexi_buffer query;
    vexi_buffer_init(&query, vex_test_env(), 4096);
    vexi_s3_query_add(&query, "delimiter", "/");
    vexi_s3_query_add(&query, "uploads", NULL);
    vexi_buffer_u8(&query, 0);
    CHECK(strcmp((const char *)query.data, "delimiter=%2F&uploads=") == 0);
    vexi_buffer_deinit(&query);
}

TEST(checksums) {
    char text[VEXI_S3_CRC_SIZE], md5[VEXI_S3_MD5_SIZE], base64[16];
    const vexi_span parts[] = {vexi_span_of("1234", 4), vexi_span_of("", 0),
                               vexi_span_of("56789", 5)};
    vexi_s3_crc_text(parts, 3, text); /* CRC-32C's check value, e3069283 */
    CHECK(strcmp(text, "4waSgw==") == 0);
    vexi_s3_crc_text(NULL, 0, text);
    CHECK(strcmp(text, "AAAAAA==") == 0);
    if (vexi_s3_md5_text(vexi_span_of("", 0), md5)) {
        CHECK(strcmp(md5, "1B2M2Y8AsgTpgAmY7PhCfg==") == 0);
    }
    static const char *const expected[] = {"",         "Zg==",     "Zm8=",    "Zm9v",
                                           "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};
    for (size_t i = 0; i < 7; i++) { /* RFC 4648, section 10 */
        vexi_s3_base64((const uint8_t *)"foobar", i, base64);
        CHECK(strcmp(base64, expected[i]) == 0);
    }
}

static void check_address(const char *endpoint, bool virtual_host, const char *base,
                          const char *host, const char *path) {
    vexi_s3_settings settings = {.bucket = "lake", .region = "eu-west-1"};
    settings.virtual_host = virtual_host;
    snprintf(settings.endpoint, sizeof settings.endpoint, "%s", endpoint);
    vexi_s3_address address;
    if (base == NULL) {
        CHECK_FAILS(VEX_INVALID, vexi_s3_address_make(&settings, &address, &err));
        return;
    }
    CHECK_OK(vexi_s3_address_make(&settings, &address, &err));
    CHECK(strcmp(address.base, base) == 0);
    CHECK(strcmp(address.host, host) == 0);
    CHECK(strcmp(address.bucket_path, path) == 0);
}

TEST(addresses) {
    check_address("", false, "https://s3.eu-west-1.amazonaws.com", "s3.eu-west-1.amazonaws.com",
                  "/lake");
    check_address("", true, "https://lake.s3.eu-west-1.amazonaws.com",
                  "lake.s3.eu-west-1.amazonaws.com", "");
    check_address("http://127.0.0.1:8333", false, "http://127.0.0.1:8333", "127.0.0.1:8333",
                  "/lake");
    check_address("http://host:80/", false, "http://host", "host", "/lake");
    check_address("https://host:443", false, "https://host", "host", "/lake");
    check_address("http://[::1]:9000", false, "http://[::1]:9000", "[::1]:9000", "/lake");
    static const char *const wrong[] = {"host:8333",       "ftp://host",      "http://",
                                        "http://u:p@host", "http://host/sub", "http://host?x=1",
                                        "http://host#x",   "http://ho st",    "not an address"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        check_address(wrong[i], false, NULL, NULL, NULL);
    }
    static const char *const buckets[] = {"", "ab", "Upper", "under_score", "-a-", "a..b", "a/b"};
    for (size_t i = 0; i < sizeof buckets / sizeof *buckets; i++) {
        vexi_s3_settings settings = {.region = "x"};
        vexi_s3_address address;
        snprintf(settings.bucket, sizeof settings.bucket, "%s", buckets[i]);
        CHECK_FAILS(VEX_INVALID, vexi_s3_address_make(&settings, &address, &err));
    }
}

/* Whether `a` comes before `b` where folders are walked: '/' sorts before every other character. */
static bool tree_before(const char *a, const char *b) {
    for (; *a != '\0' && *a == *b; a++, b++) {
    }
    int left = *a == '/' ? 1 : *a == '\0' ? 0 : 1 + (uint8_t)*a;
    int right = *b == '/' ? 1 : *b == '\0' ? 0 : 1 + (uint8_t)*b;
    return left < right;
}

/* For random names, prefixes and `after`: no name that is wanted lies before what is sent, neither
 * in byte order nor in that of folders. */
TEST(start_after_loses_nothing) {
    uint64_t random = vex_test_seed(31);
    static const char letters[] = "-./01az";
    size_t sent = 0;
    for (int trial = 0; trial < 200000; trial++) {
        char names[2][12];
        for (size_t n = 0; n < 2; n++) {
            size_t size = 1 + vex_test_below(&random, 10);
            for (size_t i = 0; i < size; i++) {
                names[n][i] = letters[vex_test_below(&random, 7)];
            }
            names[n][size] = '\0';
            if (n == 1) { /* often a continuation of the other */
                size_t shared = vex_test_below(&random, size + 1);
                size_t first_size = strlen(names[0]);
                memcpy(names[1], names[0], shared < first_size ? shared : first_size);
            }
        }
        const char *after = names[0], *name = names[1];
        char prefix[12], start[32];
        snprintf(prefix, sizeof prefix, "%.*s", (int)vex_test_below(&random, 5), after);
        vexi_s3_start_after(prefix, after, start, sizeof start);
        if (start[0] == '\0') {
            continue;
        }
        sent++;
        CHECK(strcmp(start, after) < 0);
        if (strncmp(name, prefix, strlen(prefix)) == 0 && strcmp(name, after) > 0) {
            if (strcmp(name, start) <= 0 || !tree_before(start, name)) {
                fprintf(stderr, "prefix '%s' after '%s' sends '%s', loses '%s'\n", prefix, after,
                        start, name);
                exit(1);
            }
        }
    }
    CHECK(sent > 1000);
    char start[64];
    vexi_s3_start_after("p/_log/", "p/_log/00000000000000000009.json", start, sizeof start);
    CHECK(strcmp(start, "p/_log/0000000000000000000") == 0);
}

/* Plans of random ranges: every wanted byte is in a span and reaches its target, spans are in
 * order, none is longer than one and a half parts, and none bridges more than the gap. */
TEST(plans) {
    uint64_t random = vex_test_seed(32);
    enum { OBJECT_SIZE = 4000 };
    uint8_t object[OBJECT_SIZE];
    for (size_t i = 0; i < OBJECT_SIZE; i++) {
        object[i] = (uint8_t)vex_test_random(&random);
    }
    for (int trial = 0; trial < 3000; trial++) {
        vexi_range ranges[12];
        uint8_t targets[12][600];
        size_t count = 1 + vex_test_below(&random, 12);
        size_t gap = vex_test_below(&random, 200);
        size_t part = 50 + vex_test_below(&random, 500);
        uint64_t wanted = 0;
        for (size_t i = 0; i < count; i++) {
            size_t size = 1 + vex_test_below(&random, 600);
            uint64_t offset = vex_test_below(&random, OBJECT_SIZE - size + 1);
            ranges[i] = (vexi_range){.offset = offset, .size = size, .target = targets[i]};
            memset(targets[i], 0, size);
            wanted += size;
        }
        vexi_s3_sort_ranges(ranges, count);
        vexi_s3_span *spans = NULL;
        size_t span_count = 0;
        CHECK_OK(vexi_s3_plan(vex_test_env(), ranges, count, gap, part, &spans, &span_count, &err));
        uint64_t fetched = 0;
        for (size_t i = 0; i < span_count; i++) {
            CHECK(spans[i].start < spans[i].end);
            CHECK(i == 0 || spans[i].start >= spans[i - 1].end);
            CHECK(spans[i].end - spans[i].start <= part + part / 2);
            CHECK(spans[i].first + spans[i].count <= count && spans[i].count > 0);
            fetched += spans[i].end - spans[i].start;
            /* The bytes arrive in pieces. */
            for (uint64_t at = spans[i].start; at < spans[i].end;) {
                uint64_t size = 1 + vex_test_below(&random, 100);
                size = size < spans[i].end - at ? size : spans[i].end - at;
                vexi_s3_scatter(ranges + spans[i].first, spans[i].count, at, object + at,
                                (size_t)size);
                at += size;
            }
        }
        CHECK(fetched <= wanted + count * gap);
        for (size_t i = 0; i < count; i++) {
            CHECK(memcmp(ranges[i].target, object + ranges[i].offset, ranges[i].size) == 0);
        }
        vexi_free(vex_test_env(), spans);
    }
}

TEST(plans_coalesce_and_split) {
    uint8_t target[1];
    vexi_range near[] = {{.offset = 0, .size = 10, .target = target},
                         {.offset = 15, .size = 10, .target = target},
                         {.offset = 30, .size = 10, .target = target}};
    vexi_s3_span *spans = NULL;
    size_t count = 0;
    CHECK_OK(vexi_s3_plan(vex_test_env(), near, 3, 6, 100, &spans, &count, &err));
    CHECK_EQ(count, 1);
    CHECK_EQ(spans[0].end, 40);
    vexi_free(vex_test_env(), spans);
    CHECK_OK(vexi_s3_plan(vex_test_env(), near, 3, 5, 100, &spans, &count, &err));
    CHECK_EQ(count, 3);
    vexi_free(vex_test_env(), spans);
    vexi_range large = {.offset = 7, .size = 1000, .target = target};
    CHECK_OK(vexi_s3_plan(vex_test_env(), &large, 1, 5, 300, &spans, &count, &err));
    CHECK_EQ(count, 4);
    CHECK_EQ(spans[3].end, 1007);
    vexi_free(vex_test_env(), spans);
}

TEST_MAIN(RUN(encoding); RUN(checksums); RUN(addresses); RUN(start_after_loses_nothing); RUN(plans);
          RUN(plans_coalesce_and_split))
