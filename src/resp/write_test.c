#include "check.h"
#include "resp/resp.h"

static void check_text(vexi_buffer *out, const char *wanted) {
    CHECK(!out->failed);
    if (out->size != strlen(wanted) || memcmp(out->data, wanted, out->size) != 0) {
        fprintf(stderr, "'%.*s', not '%s'\n", (int)out->size, (char *)out->data, wanted);
        exit(1);
    }
    vexi_buffer_clear(out);
}

TEST(both_protocols) {
    vexi_buffer out;
    vexi_buffer_init(&out, vex_test_env(), 1 << 20);
    vexi_resp_simple(&out, "OK");
    check_text(&out, "+OK\r\n");
    vexi_resp_error(&out, "ERR two\r\nlines");
    check_text(&out, "-ERR two  lines\r\n");
    vexi_resp_errorf(&out, "ERR %d", 5);
    check_text(&out, "-ERR 5\r\n");
    vexi_resp_integer(&out, -12345);
    check_text(&out, ":-12345\r\n");
    vexi_resp_bulk(&out, "a\r\nb", 4);
    check_text(&out, "$4\r\na\r\nb\r\n");
    vexi_resp_bulk(&out, NULL, 0);
    check_text(&out, "$0\r\n\r\n");
    vexi_resp_array(&out, 12);
    check_text(&out, "*12\r\n");
    vexi_buffer_deinit(&out);
}

TEST(differences) {
    vexi_buffer out;
    vexi_buffer_init(&out, vex_test_env(), 1 << 20);
    vexi_resp_null(&out, VEXI_RESP2);
    check_text(&out, "$-1\r\n");
    vexi_resp_null(&out, VEXI_RESP3);
    check_text(&out, "_\r\n");
    vexi_resp_boolean(&out, VEXI_RESP2, true);
    check_text(&out, ":1\r\n");
    vexi_resp_boolean(&out, VEXI_RESP3, false);
    check_text(&out, "#f\r\n");
    vexi_resp_map(&out, VEXI_RESP2, 3);
    check_text(&out, "*6\r\n");
    vexi_resp_map(&out, VEXI_RESP3, 3);
    check_text(&out, "%3\r\n");
    vexi_resp_double(&out, VEXI_RESP2, 0.1);
    check_text(&out, "$3\r\n0.1\r\n");
    vexi_resp_double(&out, VEXI_RESP3, 0.1);
    check_text(&out, ",0.1\r\n");
    vexi_resp_verbatim(&out, VEXI_RESP2, "abc", 3);
    check_text(&out, "$3\r\nabc\r\n");
    vexi_resp_verbatim(&out, VEXI_RESP3, "abc", 3);
    check_text(&out, "=7\r\ntxt:abc\r\n");
    const float values[] = {1.0f, 0.1f};
    vexi_resp_floats(&out, VEXI_RESP2, values, 2);
    check_text(&out, "*2\r\n$1\r\n1\r\n$3\r\n0.1\r\n");
    vexi_resp_floats(&out, VEXI_RESP3, values, 2);
    check_text(&out, "*2\r\n,1\r\n,0.1\r\n");
    vexi_buffer_deinit(&out);
}

TEST(a_full_buffer_fails_once_and_stays_so) {
    vexi_buffer out;
    vexi_buffer_init(&out, vex_test_env(), 300);
    char big[400];
    memset(big, 'x', sizeof big);
    vexi_resp_simple(&out, "OK");
    vexi_resp_bulk(&out, big, sizeof big);
    CHECK(out.failed);
    vexi_resp_simple(&out, "OK");
    CHECK_EQ(out.size, 5);
    CHECK(out.failed);
    vexi_buffer_deinit(&out);
}

TEST_MAIN(RUN(both_protocols); RUN(differences); RUN(a_full_buffer_fails_once_and_stays_so))
