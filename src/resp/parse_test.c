#include "check.h"
#include "resp/resp.h"

/* Parse `text` given in pieces; print what comes out as "a|b;c|;" with ! and the message behind a
 * failure. */
static void parse_all(const char *text, size_t size, size_t piece, char *out, size_t out_size) {
    vexi_resp_parser parser;
    vexi_resp_parser_init(&parser, vex_test_env(), 8, 100);
    uint8_t *data = malloc(size + 1);
    memcpy(data, text, size);
    size_t start = 0;
    size_t given = 0;
    size_t used = 0;
    out[0] = '\0';
    for (;;) {
        bool complete;
        vex_error err;
        vex_status status = vexi_resp_parse(&parser, data + start, given - start, &complete, &err);
        if (status != VEX_OK) {
            CHECK(!complete);
            used += (size_t)snprintf(out + used, out_size - used, "!%s", err.message);
            break;
        }
        if (!complete) {
            if (given == size) {
                break;
            }
            given = size - given < piece ? size : given + piece;
            /* The bytes may move between calls. */
            uint8_t *moved = malloc(size + 1);
            memcpy(moved, data, size);
            free(data);
            data = moved;
            continue;
        }
        for (uint32_t i = 0; i < parser.count; i++) {
            used += (size_t)snprintf(out + used, out_size - used, "%s%.*s", i > 0 ? "|" : "",
                                     (int)parser.slices[i].size,
                                     (char *)data + start + parser.slices[i].offset);
        }
        used += (size_t)snprintf(out + used, out_size - used, ";");
        start += parser.offset;
        vexi_resp_parser_next(&parser);
    }
    free(data);
    vexi_resp_parser_deinit(&parser);
}

static void expect(const char *text, const char *wanted) {
    size_t size = strlen(text);
    for (size_t piece = 1; piece <= size + 1; piece++) {
        char out[4096];
        parse_all(text, size, piece, out, sizeof out);
        if (strcmp(out, wanted) != 0) {
            fprintf(stderr, "in pieces of %zu: '%s' gives '%s', not '%s'\n", piece, text, out,
                    wanted);
            exit(1);
        }
    }
}

TEST(arrays) {
    expect("*1\r\n$4\r\nPING\r\n", "PING;");
    expect("*2\r\n$4\r\nECHO\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n", "ECHO|;PING;");
    expect("*2\r\n$4\r\nECHO\r\n$4\r\na\r\nb\r\n", "ECHO|a\r\nb;");
    expect("*0\r\n*-1\r\n*1\r\n$1\r\nx\r\n", ";;x;");
    expect("*2\r\n$4\r\nECHO\r\n$5\r\nab", "");
}

TEST(lines) {
    expect("PING\r\nECHO  two words \n", "PING;ECHO|two|words;");
    expect("\r\n\nPING\n", ";;PING;");
    expect("ECHO \"a b\" 'c\\'d' \"\\x41\\n\\\\\" \"\"\n", "ECHO|a b|c'd|A\n\\|;");
    expect("ECHO \"\\x4\"\n", "ECHO|x4;");
    expect("ECHO \"abc\n", "!Protocol error: unbalanced quotes in request");
    expect("ECHO 'abc'd\n", "!Protocol error: unbalanced quotes in request");
    expect("1 2 3 4 5 6 7 8 9\n", "!Protocol error: too many words in inline request");
    expect("1 2 3 4 5 6 7 8\n", "1|2|3|4|5|6|7|8;");
}

TEST(errors) {
    expect("PING\n*x\r\n", "PING;!Protocol error: invalid multibulk length");
    expect("*\r\n", "!Protocol error: invalid multibulk length");
    expect("*-\r\n", "!Protocol error: invalid multibulk length");
    expect("*1\rX", "!Protocol error: invalid multibulk length");
    expect("*9\r\n", "!Protocol error: invalid multibulk length");
    expect("*1111111111111111111111111111111111111111",
           "!Protocol error: too big mbulk count string");
    expect("*1\r\n:1\r\n", "!Protocol error: expected '$', got ':'");
    expect("*1\r\n\x01", "!Protocol error: expected '$', got byte 0x01");
    expect("*1\r\n$x\r\n", "!Protocol error: invalid bulk length");
    expect("*1\r\n$-1\r\n", "!Protocol error: invalid bulk length");
    expect("*1\r\n$101\r\n", "!Protocol error: invalid bulk length");
    expect("*1\r\n$1111111111111111111111111111111111111111",
           "!Protocol error: too big bulk count string");
    expect("*1\r\n$1\r\nabc", "!Protocol error: bulk string of 1 bytes does not end in CR LF");
}

TEST(limits_of_strangers) {
    vexi_resp_parser parser;
    vexi_resp_parser_init(&parser, vex_test_env(), 10, 16384);
    parser.strict = true;
    bool complete;
    char many[] = "*11\r\n";
    CHECK_FAILS(VEX_INVALID, vexi_resp_parse(&parser, (uint8_t *)many, 5, &complete, &err));
    vex_error error;
    CHECK(vexi_resp_parse(&parser, (uint8_t *)many, 5, &complete, &error) == VEX_INVALID);
    CHECK(strcmp(error.message, "Protocol error: unauthenticated multibulk length") == 0);
    char large[] = "*1\r\n$16385\r\n";
    CHECK(vexi_resp_parse(&parser, (uint8_t *)large, 12, &complete, &error) == VEX_INVALID);
    CHECK(strcmp(error.message, "Protocol error: unauthenticated bulk length") == 0);
    vexi_resp_parser_deinit(&parser);
}

TEST(long_lines) {
    size_t size = VEXI_RESP_INLINE_SIZE_MAX + 1;
    char *line = malloc(size + 1);
    memset(line, 'x', size + 1);
    vexi_resp_parser parser;
    vexi_resp_parser_init(&parser, vex_test_env(), 8, 100);
    bool complete;
    for (size_t given = 1; given < size; given += 1000) {
        CHECK_OK(vexi_resp_parse(&parser, (uint8_t *)line, given, &complete, &err));
        CHECK(!complete);
    }
    CHECK_FAILS(VEX_INVALID, vexi_resp_parse(&parser, (uint8_t *)line, size, &complete, &err));
    vexi_resp_parser_next(&parser);
    line[size - 1] = '\n';
    CHECK_OK(vexi_resp_parse(&parser, (uint8_t *)line, size, &complete, &err));
    CHECK(complete && parser.count == 1 && parser.slices[0].size == size - 1);
    vexi_resp_parser_deinit(&parser);
    free(line);
}

TEST_MAIN(RUN(arrays); RUN(lines); RUN(errors); RUN(limits_of_strangers); RUN(long_lines))
