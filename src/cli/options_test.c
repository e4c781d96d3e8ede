#include "cli/options.h"

#include "check.h"
#include "cli/commands.h"

static const vexi_cli_option options[] = {
    {"lake", 0, true, "URI", "the lake"},
    {"count", 'k', false, "N", "how many"},
    {"metric", 0, false, VEXI_CLI_METRICS, "which"},
    {"exact", 'e', false, NULL, "all"},
    {0},
};

static const vexi_cli_command command = {
    .name = "try",
    .operands = "FILE...",
    .summary = "Try.",
    .operand_min = 1,
    .operand_max = 2,
    .options = options,
};

/* Read a command line of up to eight words; NULL ends it. */
static vex_status read_words(const char *const words[8], vexi_cli_arguments *out, vex_error *err) {
    static char text[9][64];
    static char *argv[10];
    int argc = 1;
    argv[0] = text[8];
    for (int i = 0; i < 8 && words[i] != NULL; i++) {
        (void)snprintf(text[i], sizeof text[i], "%s", words[i]);
        argv[argc++] = text[i];
    }
    argv[argc] = NULL;
    return vexi_cli_read(&command, argc, argv, out, err);
}

#define WORDS(...) ((const char *const[8]){__VA_ARGS__})

TEST(forms) {
    vexi_cli_arguments a;
    CHECK_OK(read_words(WORDS("one", "--lake", "here", "-k5", "two", "-e"), &a, &err));
    CHECK(strcmp(vexi_cli_value(&a, "lake"), "here") == 0);
    CHECK(strcmp(vexi_cli_value(&a, "count"), "5") == 0);
    CHECK(vexi_cli_flag(&a, "exact"));
    CHECK(vexi_cli_value(&a, "metric") == NULL);
    CHECK_EQ(a.operand_count, 2);
    CHECK(strcmp(a.operands[0], "one") == 0 && strcmp(a.operands[1], "two") == 0);

    CHECK_OK(read_words(WORDS("--lake=a=b", "-k", "7", "--", "--exact"), &a, &err));
    CHECK(strcmp(vexi_cli_value(&a, "lake"), "a=b") == 0);
    CHECK(!vexi_cli_flag(&a, "exact"));
    CHECK(strcmp(a.operands[0], "--exact") == 0);

    /* A value may begin with a dash; `-` alone is an operand; an empty value is a value. */
    CHECK_OK(read_words(WORDS("--lake", "-x", "-", "--count="), &a, &err));
    CHECK(strcmp(vexi_cli_value(&a, "lake"), "-x") == 0);
    CHECK(strcmp(vexi_cli_value(&a, "count"), "") == 0);
    CHECK(strcmp(a.operands[0], "-") == 0);
}

TEST(help) {
    vexi_cli_arguments a;
    CHECK_OK(read_words(WORDS("--nonsense", "--help"), &a, &err));
    CHECK(a.help);
    CHECK_OK(read_words(WORDS("--lake", "l", "--", "--help"), &a, &err));
    CHECK(!a.help);
}

TEST(refusals) {
    static const struct {
        const char *words[8];
        const char *message;
    } cases[] = {
        {{"f"}, "--lake URI is missing"},
        {{"--lake", "l"}, "FILE... is missing"},
        {{"--lake", "l", "a", "b", "c"}, "unexpected argument 'c'"},
        {{"--lake", "l", "a", "--lake", "m"}, "--lake is given twice"},
        {{"a", "--lake"}, "--lake needs a value: URI"},
        {{"--lake", "l", "a", "--exact=yes"}, "--exact takes no value"},
        {{"--lake", "l", "a", "--exac"}, "unknown option '--exac'"},
        {{"--lake", "l", "a", "--exactly"}, "unknown option '--exactly'"},
        {{"--lake", "l", "a", "-q"}, "unknown option '-q'"},
        {{"--lake", "l", "a", "-kk", "-e1"}, "--exact takes no value"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vexi_cli_arguments a;
        vex_error err;
        CHECK(read_words(cases[i].words, &a, &err) == VEX_INVALID);
        if (strcmp(err.message, cases[i].message) != 0) {
            fprintf(stderr, "'%s' is not '%s'\n", err.message, cases[i].message);
        }
        CHECK(strcmp(err.message, cases[i].message) == 0);
    }
}

TEST(numbers) {
    static const char *const bad[] = {"",   "0",  "11", "-1",  "+1",
                                      " 1", "1 ", "1x", "0x1", "99999999999999999999999"};
    vexi_cli_arguments a;
    uint32_t number = 0;
    CHECK_OK(read_words(WORDS("--lake", "l", "f"), &a, &err));
    CHECK_OK(vexi_cli_number(&a, "count", 1, 10, 4, &number, &err));
    CHECK_EQ(number, 4);
    CHECK_OK(read_words(WORDS("--lake", "l", "f", "-k", "10"), &a, &err));
    CHECK_OK(vexi_cli_number(&a, "count", 1, 10, 4, &number, &err));
    CHECK_EQ(number, 10);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_OK(read_words(WORDS("--lake", "l", "f", "--count", bad[i]), &a, &err));
        CHECK_FAILS(VEX_INVALID, vexi_cli_number(&a, "count", 1, 10, 4, &number, &err));
    }
}

TEST(choices) {
    vexi_cli_arguments a;
    uint32_t place = 9;
    char text[32];
    CHECK_OK(read_words(WORDS("--lake", "l", "f"), &a, &err));
    CHECK_OK(vexi_cli_choice(&a, "metric", VEXI_CLI_METRICS, VEX_METRIC_L2, &place, &err));
    CHECK_EQ(place, VEX_METRIC_L2);
    for (uint32_t metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
        const char *name = vexi_cli_nth(VEXI_CLI_METRICS, metric, text);
        CHECK_OK(read_words(WORDS("--lake", "l", "f", "--metric", name), &a, &err));
        CHECK_OK(vexi_cli_choice(&a, "metric", VEXI_CLI_METRICS, 7, &place, &err));
        CHECK_EQ(place, metric);
    }
    CHECK(strcmp(vexi_cli_nth(VEXI_CLI_METRICS, VEX_METRIC_COSINE, text), "cosine") == 0);
    CHECK(strcmp(vexi_cli_nth(VEXI_CLI_INDEXES, VEX_INDEX_IVF, text), "ivf") == 0);
    CHECK(strcmp(vexi_cli_nth(VEXI_CLI_TYPES, VEX_TYPE_TIMESTAMP - 1, text), "timestamp") == 0);
    CHECK_OK(read_words(WORDS("--lake", "l", "f", "--metric", "cos"), &a, &err));
    CHECK_FAILS(VEX_INVALID, vexi_cli_choice(&a, "metric", VEXI_CLI_METRICS, 7, &place, &err));
}

TEST(vectors) {
    static const char *const bad[] = {"",     "[",     "]",      "[]",      "[ ]",    "1,2",
                                      "[1",   "1]",    "[,1]",   "[1,,2]",  "[1,]",   "[x]",
                                      "[1x]", "[1;2]", "[nan]",  "[inf]",   "[1e39]", "[1 2 3 4 5]",
                                      "[1][", "[[1]]", "[0x10]", "[1.2.3]", "[- 1]",  "[1e]"};
    float values[4];
    uint32_t count = 0;
    CHECK_OK(vexi_cli_read_vector("[0.1, -2\t3e-1 ,+4.]", 4, values, &count, &err));
    CHECK_EQ(count, 4);
    CHECK(values[0] == 0.1f && values[1] == -2 && values[2] == 0.3f && values[3] == 4);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        vex_error err = {0};
        vex_status status = vexi_cli_read_vector(bad[i], 4, values, &count, &err);
        if (status != VEX_INVALID || err.message[0] == '\0') {
            fprintf(stderr, "'%s' is taken for a vector\n", bad[i]);
        }
        CHECK(status == VEX_INVALID && err.message[0] != '\0');
    }
}

TEST_MAIN(RUN(forms); RUN(help); RUN(refusals); RUN(numbers); RUN(choices); RUN(vectors))
