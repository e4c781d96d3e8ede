/* Signatures against AWS' published examples: the four of the S3 documentation ("Examples:
 * Signature Calculations"), the first of the Signature Version 4 test suite, and the key
 * derivation example. */
#include "check.h"
#include "store/s3_internal.h"

static const char empty_hash[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

static vexi_s3_signer s3_signer(void) {
    return (vexi_s3_signer){.access_key = "AKIAIOSFODNN7EXAMPLE",
                            .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                            .region = "us-east-1",
                            .service = "s3"};
}

static void check_signature(vexi_s3_signer *signer, const char *date, const char *method,
                            const char *path, const char *query, const vexi_s3_header *headers,
                            size_t count, const char *hash, const char *names,
                            const char *signature) {
    vexi_buffer out;
    vexi_buffer_init(&out, vex_test_env(), 4096);
    vexi_s3_sign(signer, date, method, path, query, headers, count, hash, &out);
    CHECK_OK(vexi_buffer_check(&out, &err));
    vexi_buffer_u8(&out, 0);
    char expected[1024];
    snprintf(expected, sizeof expected,
             "AWS4-HMAC-SHA256 Credential=%s/%.8s/%s/%s/aws4_request,SignedHeaders=%s,Signature=%s",
             signer->access_key, date, signer->region, signer->service, names, signature);
    if (strcmp((const char *)out.data, expected) != 0) {
        fprintf(stderr, "%s\ninstead of\n%s\n", (const char *)out.data, expected);
        exit(1);
    }
    vexi_buffer_deinit(&out);
}

TEST(s3_examples) {
    vexi_s3_signer signer = s3_signer();
    const char *date = "20130524T000000Z";
    const char *host = "examplebucket.s3.amazonaws.com";
    const vexi_s3_header get[] = {{"range", "bytes=0-9"},
                                  {"x-amz-date", date},
                                  {"host", host},
                                  {"x-amz-content-sha256", empty_hash}};
    check_signature(&signer, date, "GET", "/test.txt", "", get, 4, empty_hash,
                    "host;range;x-amz-content-sha256;x-amz-date",
                    "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");

    char hash[65];
    vexi_s3_sha256_hex("Welcome to Amazon S3.", 21, hash);
    CHECK(strcmp(hash, "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072") == 0);
    const vexi_s3_header put[] = {{"date", "Fri, 24 May 2013 00:00:00 GMT"},
                                  {"host", host},
                                  {"x-amz-content-sha256", hash},
                                  {"x-amz-date", date},
                                  {"x-amz-storage-class", "REDUCED_REDUNDANCY"}};
    check_signature(&signer, date, "PUT", "/test%24file.text", "", put, 5, hash,
                    "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
                    "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");

    const vexi_s3_header plain[] = {
        {"host", host}, {"x-amz-content-sha256", empty_hash}, {"x-amz-date", date}};
    check_signature(&signer, date, "GET", "/", "lifecycle=", plain, 3, empty_hash,
                    "host;x-amz-content-sha256;x-amz-date",
                    "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    check_signature(&signer, date, "GET", "/", "max-keys=2&prefix=J", plain, 3, empty_hash,
                    "host;x-amz-content-sha256;x-amz-date",
                    "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

TEST(suite_vanilla) {
    vexi_s3_signer signer = {.access_key = "AKIDEXAMPLE",
                             .secret_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                             .region = "us-east-1",
                             .service = "service"};
    const vexi_s3_header headers[] = {{"host", " example.amazonaws.com  "},
                                      {"x-amz-date", "20150830T123600Z"}};
    for (int i = 0; i < 2; i++) { /* the second time with the key of the day */
        check_signature(&signer, "20150830T123600Z", "GET", "/", "", headers, 2, empty_hash,
                        "host;x-amz-date",
                        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
    }
}

TEST(key_derivation) {
    uint8_t key[32];
    vexi_s3_signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20120215", "us-east-1", "iam",
                        key);
    static const uint8_t expected[32] = {0xf4, 0x78, 0x0e, 0x2d, 0x9f, 0x65, 0xfa, 0x89,
                                         0x5f, 0x9c, 0x67, 0xb3, 0x2c, 0xe1, 0xba, 0xf0,
                                         0xb0, 0xd8, 0xa4, 0x35, 0x05, 0xa0, 0x00, 0xa1,
                                         0xa9, 0xe0, 0x90, 0xd4, 0x14, 0xdb, 0x40, 0x4d};
    CHECK(memcmp(key, expected, sizeof key) == 0);
}

TEST(a_new_day_has_a_new_key) {
    vexi_s3_signer signer = s3_signer();
    vexi_s3_header header = {"host", "h"};
    vexi_buffer out;
    vexi_buffer_init(&out, vex_test_env(), 4096);
    vexi_s3_sign(&signer, "20200101T000000Z", "GET", "/", "", &header, 1, empty_hash, &out);
    uint8_t first[32];
    memcpy(first, signer.key, sizeof first);
    vexi_s3_sign(&signer, "20200102T000000Z", "GET", "/", "", &header, 1, empty_hash, &out);
    CHECK(memcmp(first, signer.key, sizeof first) != 0);
    CHECK_OK(vexi_buffer_check(&out, &err));
    vexi_buffer_deinit(&out);
}

TEST(dates) {
    static const struct {
        int64_t seconds;
        const char *text;
    } cases[] = {{0, "19700101T000000Z"},          {951782399, "20000228T235959Z"},
                 {951782400, "20000229T000000Z"},  {951868800, "20000301T000000Z"},
                 {1369353600, "20130524T000000Z"}, {1735689599, "20241231T235959Z"},
                 {4107542400, "21000301T000000Z"}, {-1, "19691231T235959Z"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[VEXI_S3_DATE_SIZE];
        vexi_s3_date(cases[i].seconds, text);
        if (strcmp(text, cases[i].text) != 0) {
            fprintf(stderr, "%s instead of %s\n", text, cases[i].text);
            exit(1);
        }
    }
}

TEST_MAIN(RUN(s3_examples); RUN(suite_vanilla); RUN(key_derivation); RUN(a_new_day_has_a_new_key);
          RUN(dates))
