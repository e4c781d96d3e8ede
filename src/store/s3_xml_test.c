/* XML answers as servers give them, and as no server should. */
#include "check.h"
#include "store/s3_internal.h"

static vexi_span span_of(const char *text) {
    return vexi_span_of(text, strlen(text));
}

/* The listing's names in a line, or the failure's status as a number. */
static void check_list(const char *xml, const char *strip, const char *expected) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_s3_entries entries = {0};
    vexi_s3_page page;
    vex_error err;
    char text[1024] = "";
    size_t size = 0;
    vex_status status =
        vexi_s3_parse_list(vex_test_env(), span_of(xml), strip, &arena, &entries, &page, &err);
    if (status != VEX_OK) {
        CHECK(err.message[0] != '\0');
        size = (size_t)snprintf(text, sizeof text, "%d", status);
    }
    for (size_t i = 0; status == VEX_OK && i < entries.count; i++) {
        size += (size_t)snprintf(text + size, sizeof text - size, "%s:%llu:%lld ",
                                 entries.entries[i].name,
                                 (unsigned long long)entries.entries[i].size_bytes,
                                 (long long)entries.entries[i].modified_us);
        CHECK(size < sizeof text);
    }
    if (status == VEX_OK && page.is_truncated) {
        snprintf(text + size, sizeof text - size, "-> %.100s", page.token);
    }
    if (strcmp(text, expected) != 0) {
        fprintf(stderr, "'%s' instead of '%s'\n", text, expected);
        exit(1);
    }
    vexi_free(vex_test_env(), entries.entries);
    vexi_arena_deinit(&arena);
}

TEST(listings) {
    check_list("<ListBucketResult/>", "", "");
    check_list("<?xml version='1.0'?><ListBucketResult xmlns='x'><Contents><Key>p/a</Key>"
               "<LastModified>1970-01-02T00:00:01.500Z</LastModified><Size>7</Size></Contents>"
               "<Contents><Size>8</Size><Key>p/b</Key></Contents><CommonPrefixes><Prefix>p/c/"
               "</Prefix></CommonPrefixes></ListBucketResult>",
               "p/", "a:7:86401500000 b:8:0 c/:0:0 ");
    check_list("<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b"
               "</NextContinuationToken></ListBucketResult>",
               "", "-> a&b");
    /* Markers of folders, keys of others, keys outside the prefix, the prefix itself. */
    check_list("<ListBucketResult><Contents><Key>p/f/</Key></Contents><Contents><Key>p/a b</Key>"
               "</Contents><Contents><Key>q/a</Key></Contents><Contents><Key>p/</Key></Contents>"
               "<Contents><Key>p/../x</Key></Contents></ListBucketResult>",
               "p/", "");
    /* Encoded keys, wherever the server says that they are. */
    check_list("<ListBucketResult><Contents><Key>a%3D1%2fb</Key></Contents><EncodingType>url"
               "</EncodingType></ListBucketResult>",
               "", "a=1/b:0:0 ");
    check_list("<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>a+b</Key>"
               "</Contents></ListBucketResult>",
               "", "");
    check_list("<ListBucketResult><Contents><Key>a</Key><LastModified>2024-02-29T12:00:00Z"
               "</LastModified></Contents><Contents><Key>b</Key><LastModified>yesterday"
               "</LastModified></Contents></ListBucketResult>",
               "", "a:0:1709208000000000 b:0:0 ");
}

TEST(hostile_listings) {
    static const char *const wrong[] = {
        "",
        "no xml",
        "<html><body>login</body></html>",
        "<ListBucketResult>",
        "<ListBucketResult></Contents>",
        "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key><Size>99999999999999999999</Size></Contents>"
        "</ListBucketResult>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        "<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>a%zz</Key></Contents>"
        "</ListBucketResult>",
        "<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>a%00</Key></Contents>"
        "</ListBucketResult>",
        "<!DOCTYPE x [<!ENTITY a 'b'>]><ListBucketResult/>",
        "<!DOCTYPE x SYSTEM 'file:///etc/passwd'><ListBucketResult/>",
        "<ListBucketResult><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a></a></a></a></a></a></a>"
        "</a></a></a></a></a></a></a></a></a></a></ListBucketResult>"};
    char expected[8];
    snprintf(expected, sizeof expected, "%d", VEX_CORRUPT);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        check_list(wrong[i], "", expected);
    }
    static char large[VEXI_S3_XML_TEXT_SIZE_MAX + 200];
    size_t size = (size_t)snprintf(large, sizeof large, "<ListBucketResult><Contents><Key>");
    memset(large + size, 'a', VEXI_S3_XML_TEXT_SIZE_MAX);
    size += VEXI_S3_XML_TEXT_SIZE_MAX;
    snprintf(large + size, sizeof large - size, "</Key></Contents></ListBucketResult>");
    check_list(large, "", expected);
}

TEST(errors) {
    vexi_s3_answer_error error;
    CHECK(vexi_s3_parse_error(span_of("<Error><Code>NoSuchKey</Code><Message>a\nb\xc3\xa4"
                                      "</Message><Region>eu</Region></Error>"),
                              &error));
    CHECK(strcmp(error.code, "NoSuchKey") == 0 && strcmp(error.region, "eu") == 0);
    CHECK(strcmp(error.message, "a b  ") == 0); /* nothing odd gets into our messages */
    CHECK(!vexi_s3_parse_error(span_of(""), &error));
    CHECK(!vexi_s3_parse_error(span_of("<Error><Message>x</Message></Error>"), &error));
    CHECK(!vexi_s3_parse_error(span_of("<html>"), &error));
}

TEST(deletions) {
    bool failed = true;
    vexi_s3_answer_error error;
    char key[VEXI_STORE_NAME_SIZE_MAX + 1];
    CHECK_OK(vexi_s3_parse_delete(span_of("<DeleteResult/>"), &failed, &error, key, &err));
    CHECK(!failed);
    CHECK_OK(vexi_s3_parse_delete(
        span_of(
            "<DeleteResult><Deleted><Key>z</Key></Deleted><Error><Key>a/b</Key><Code>AccessDenied"
            "</Code></Error><Error><Key>c</Key><Code>Later</Code></Error></DeleteResult>"),
        &failed, &error, key, &err));
    CHECK(failed && strcmp(key, "a/b") == 0 && strcmp(error.code, "AccessDenied") == 0);
    CHECK_FAILS(VEX_CORRUPT, vexi_s3_parse_delete(span_of("<Other/>"), &failed, &error, key, &err));
}

TEST(uploads) {
    char id[8];
    CHECK_OK(vexi_s3_parse_upload_id(
        span_of("<InitiateMultipartUploadResult><UploadId>1234567</UploadId>"
                "</InitiateMultipartUploadResult>"),
        id, sizeof id, &err));
    CHECK(strcmp(id, "1234567") == 0);
    CHECK_FAILS(VEX_CORRUPT,
                vexi_s3_parse_upload_id(span_of("<InitiateMultipartUploadResult><UploadId>12345678"
                                                "</UploadId></InitiateMultipartUploadResult>"),
                                        id, sizeof id, &err));
    vexi_buffer out;
    vexi_buffer_init(&out, vex_test_env(), 256);
    vexi_s3_xml_escape(&out, "a<b>&\"c");
    vexi_buffer_u8(&out, 0);
    CHECK(strcmp((const char *)out.data, "a&lt;b&gt;&amp;&quot;c") == 0);
    vexi_buffer_deinit(&out);
}

TEST_MAIN(RUN(listings); RUN(hostile_listings); RUN(errors); RUN(deletions); RUN(uploads))
