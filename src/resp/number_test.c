#include <float.h>
#include <math.h>

#include "check.h"
#include "resp/resp.h"

static const char *float_text(float value, char out[VEXI_NUMBER_SIZE_MAX + 1]) {
    size_t size = vexi_format_float(value, out);
    CHECK(size < VEXI_NUMBER_SIZE_MAX);
    out[size] = '\0';
    return out;
}

static const char *double_text(double value, char out[VEXI_NUMBER_SIZE_MAX + 1]) {
    size_t size = vexi_format_double(value, out);
    CHECK(size < VEXI_NUMBER_SIZE_MAX);
    out[size] = '\0';
    return out;
}

/* Significant digits of a number's text. */
static int digit_count(const char *text) {
    int count = 0;
    int zeros = 0;
    for (; *text != '\0' && *text != 'e'; text++) {
        if (*text < '0' || *text > '9' || (*text == '0' && count == 0)) {
            continue;
        }
        count++;
        zeros = *text == '0' ? zeros + 1 : 0;
    }
    return count - zeros;
}

/* The fewest digits with which some decimal reads back: the decimals next to the value on both
 * sides are tried for each count. */
static int fewest_digits(double value, bool is_float) {
    for (int count = 1; count <= 17; count++) {
        char text[64];
        snprintf(text, sizeof text, "%.*e", count - 1, value);
        char *end = strchr(text, 'e');
        long long digits = 0;
        for (char *p = text; p < end; p++) {
            if (*p >= '0' && *p <= '9') {
                digits = digits * 10 + (*p - '0');
            }
        }
        int exponent = (int)strtol(end + 1, NULL, 10) - (count - 1);
        for (int step = -1; step <= 1; step++) {
            char near[64];
            snprintf(near, sizeof near, "%llde%d", digits + step, exponent);
            if (is_float ? strtof(near, NULL) == (float)value : strtod(near, NULL) == value) {
                return count;
            }
        }
    }
    return 17;
}

static void check_float(float value) {
    char text[VEXI_NUMBER_SIZE_MAX + 1];
    float_text(value, text);
    if (strtof(text, NULL) != value ||
        digit_count(text) > fewest_digits(fabs((double)value), true)) {
        fprintf(stderr, "%.9g is written %s\n", (double)value, text);
        exit(1);
    }
    float back;
    char ended[VEXI_NUMBER_SIZE_MAX + 2];
    int size = snprintf(ended, sizeof ended, "%s]", text);
    CHECK_EQ(vexi_parse_float(ended, (size_t)size, &back), size - 1);
    CHECK(back == value && signbit(back) == signbit(value));
}

static void check_double(double value) {
    char text[VEXI_NUMBER_SIZE_MAX + 1];
    double_text(value, text);
    if (strtod(text, NULL) != value || digit_count(text) > fewest_digits(fabs(value), false)) {
        fprintf(stderr, "%.17g is written %s\n", value, text);
        exit(1);
    }
}

TEST(known_texts) {
    char text[VEXI_NUMBER_SIZE_MAX + 1];
    static const struct {
        float value;
        const char *text;
    } floats[] = {{0.1f, "0.1"},
                  {-0.1f, "-0.1"},
                  {0.0f, "0"},
                  {-0.0f, "-0"},
                  {1.0f, "1"},
                  {-16777216.0f, "-16777216"},
                  {33554432.0f, "33554432"},
                  {0.30000001f, "0.3"},
                  {1e-5f, "0.00001"},
                  {0.0001f, "0.0001"},
                  {1.5e-7f, "1.5e-7"},
                  {1e20f, "1e20"},
                  {3.4028235e38f, "3.4028235e38"},
                  {1.1754944e-38f, "1.1754944e-38"},
                  {1e-45f, "1e-45"},
                  {16777218.0f, "16777218"},
                  {9.5367431640625e-07f, "9.536743e-7"},
                  {123456.79f, "123456.79"}};
    for (size_t i = 0; i < sizeof floats / sizeof floats[0]; i++) {
        if (strcmp(float_text(floats[i].value, text), floats[i].text) != 0) {
            fprintf(stderr, "%s, not %s\n", text, floats[i].text);
            exit(1);
        }
    }
    CHECK(strcmp(double_text(0.1, text), "0.1") == 0);
    CHECK(strcmp(double_text(9.430899995936453, text), "9.430899995936453") == 0);
    CHECK(strcmp(double_text(5e-324, text), "5e-324") == 0);
    CHECK(strcmp(double_text(1.7976931348623157e308, text), "1.7976931348623157e308") == 0);
    CHECK(strcmp(double_text(2.2250738585072014e-308, text), "2.2250738585072014e-308") == 0);
    CHECK(strcmp(double_text(1e17, text), "1e17") == 0);
    CHECK(strcmp(double_text(1e16, text), "10000000000000000") == 0);
    CHECK(strcmp(double_text(9007199254740993.0, text), "9007199254740992") == 0);
    CHECK(strcmp(double_text((double)NAN, text), "nan") == 0);
    CHECK(strcmp(double_text(-(double)INFINITY, text), "-inf") == 0);
}

TEST(random_floats_read_back) {
    uint64_t state = vex_test_seed(42);
    for (uint64_t i = 0; i < vex_test_effort(100000); i++) {
        uint32_t bits = (uint32_t)vex_test_random(&state);
        if (i % 4 == 1) { /* powers of two and their neighbours */
            bits = (bits & 0xff800000u) + (uint32_t)vex_test_below(&state, 3) - 1u;
        }
        float value;
        memcpy(&value, &bits, sizeof value);
        if (i % 4 == 2) {
            value = vex_test_normal(&state) * 0.05f;
        }
        if (i % 4 == 3) { /* short decimals */
            value = (float)vex_test_below(&state, 100000) / 1000.0f;
        }
        if (isfinite(value)) {
            check_float(value);
        }
    }
}

TEST(random_doubles_read_back) {
    uint64_t state = vex_test_seed(43);
    for (uint64_t i = 0; i < vex_test_effort(30000); i++) {
        uint64_t bits = vex_test_random(&state);
        if (i % 3 == 1) {
            bits = (bits & 0xfff0000000000000u) + vex_test_below(&state, 3) - 1u;
        }
        double value;
        memcpy(&value, &bits, sizeof value);
        if (i % 3 == 2) {
            value = (double)vex_test_normal(&state);
        }
        if (isfinite(value)) {
            check_double(value);
        }
    }
}

TEST(float_texts) {
    static const struct {
        const char *text;
        size_t size;
        float value;
    } cases[] = {{"1]", 1, 1.0f},
                 {"-1.5,", 4, -1.5f},
                 {"+.5 ", 3, 0.5f},
                 {"5.]", 2, 5.0f},
                 {"1e3]", 3, 1000.0f},
                 {"1E-2]", 4, 0.01f},
                 {"1e]", 1, 1.0f},
                 {"1e+]", 1, 1.0f},
                 {"0x10]", 1, 0.0f},
                 {"-0]", 2, -0.0f},
                 {"00012]", 5, 12.0f},
                 {"1.2.3]", 3, 1.2f},
                 {"16777217]", 8, 16777216.0f},
                 {"16777219]", 8, 16777220.0f},
                 {"1.00000005960464477539062500000000001]", 37, 1.00000012f},
                 {"1.000000059604644775390625]", 26, 1.0f},
                 {"0.000000000000000000000000000000000000000000001]", 47, 1e-45f},
                 {"100000000000000000000000000000000000000e-38]", 43, 1.0f},
                 {"3.4028235e38]", 12, 3.4028235e38f}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float value;
        size_t size = vexi_parse_float(cases[i].text, strlen(cases[i].text), &value);
        if (size != cases[i].size || memcmp(&value, &cases[i].value, sizeof value) != 0) {
            fprintf(stderr, "%s: %zu bytes, %.9g\n", cases[i].text, size, (double)value);
            exit(1);
        }
    }
    float value;
    CHECK_EQ(vexi_parse_float("]", 1, &value), 0);
    CHECK_EQ(vexi_parse_float("-]", 2, &value), 0);
    CHECK_EQ(vexi_parse_float(".]", 2, &value), 0);
    CHECK_EQ(vexi_parse_float("nan]", 4, &value), 0);
    CHECK_EQ(vexi_parse_float("inf]", 4, &value), 0);
    CHECK_EQ(vexi_parse_float("12", 2, &value), 0); /* nothing ends it */
    CHECK_EQ(vexi_parse_float("1e5", 3, &value), 0);
    CHECK(vexi_parse_float("1e39]", 5, &value) == 4 && isinf(value));
    CHECK(vexi_parse_float("-1e99999999999999999999]", 24, &value) == 23 && value < 0 &&
          isinf(value));
    char digits[402];
    memset(digits, '7', 400);
    digits[1] = '.';
    digits[400] = ']';
    CHECK_EQ(vexi_parse_float(digits, 401, &value), 400);
    CHECK(value == 7.7777777f);
}

TEST(parsed_floats_are_strtof_s) {
    uint64_t state = vex_test_seed(44);
    for (uint64_t i = 0; i < vex_test_effort(100000); i++) {
        char text[64];
        int size = snprintf(text, sizeof text, "%s%llu.%0*llue%d,", i % 2 == 0 ? "-" : "",
                            (unsigned long long)vex_test_below(&state, 1000),
                            (int)vex_test_below(&state, 12),
                            (unsigned long long)vex_test_below(&state, 1000000000000u),
                            (int)vex_test_below(&state, 60) - 45);
        float value;
        CHECK_EQ(vexi_parse_float(text, (size_t)size, &value), size - 1);
        float wanted = strtof(text, NULL);
        if (memcmp(&value, &wanted, sizeof value) != 0) {
            fprintf(stderr, "%s: %.9g, not %.9g\n", text, (double)value, (double)wanted);
            exit(1);
        }
    }
}

TEST(integers) {
    char text[VEXI_NUMBER_SIZE_MAX];
    CHECK(vexi_format_i64(INT64_MIN, text) == 20 && memcmp(text, "-9223372036854775808", 20) == 0);
    CHECK(vexi_format_i64(0, text) == 1 && text[0] == '0');
    static const struct {
        const char *text;
        bool valid;
        int64_t value;
    } cases[] = {{"0", true, 0},
                 {"-1", true, -1},
                 {"9223372036854775807", true, INT64_MAX},
                 {"-9223372036854775808", true, INT64_MIN},
                 {"9223372036854775808", false, 0},
                 {"99999999999999999999", false, 0},
                 {"", false, 0},
                 {"-", false, 0},
                 {"+1", false, 0},
                 {" 1", false, 0},
                 {"1 ", false, 0},
                 {"01", false, 0},
                 {"1.0", false, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t value;
        vex_string string = {.data = cases[i].text, .size = strlen(cases[i].text)};
        CHECK_EQ(vexi_parse_i64(string, &value), cases[i].valid);
        CHECK_EQ(value, cases[i].value);
    }
}

TEST_MAIN(RUN(known_texts); RUN(random_floats_read_back); RUN(random_doubles_read_back);
          RUN(float_texts); RUN(parsed_floats_are_strtof_s); RUN(integers))
