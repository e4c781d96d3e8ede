/* The server's pure parts: patterns, command lookup, timestamps, import paths, secrets. */
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "server/commands.h"
#include "server/rows.h"

static bool match(const char *pattern, const char *text) {
    return vexi_glob_match(vexi_string_of(pattern), vexi_string_of(text), false);
}

TEST(patterns) {
    CHECK(match("*", "") && match("*", "abc") && match("a*c", "abbbc") && match("a*b*c", "axbyc"));
    CHECK(!match("a*c", "abcd") && !match("", "a") && match("", ""));
    CHECK(match("a?c", "abc") && !match("a?c", "ac"));
    CHECK(match("[a-c]x", "bx") && !match("[a-c]x", "dx") && match("[^a-c]x", "dx"));
    CHECK(match("[c-a]", "b") && match("[abc]", "c") && !match("[abc]", "d"));
    CHECK(match("\\*", "*") && !match("\\*", "a") && match("[\\]]", "]") && match("[a", "a"));
    CHECK(match("**a**", "bab") && !match("*a", "ab"));
    CHECK(vexi_glob_match(vexi_string_of("PORT*"), vexi_string_of("port"), true));
    char many[64];
    char long_text[4096];
    memset(long_text, 'a', sizeof long_text);
    size_t used = 0;
    for (int i = 0; i < 20; i++) {
        many[used++] = '*';
        many[used++] = 'a';
    }
    many[used++] = 'b';
    /* Ends in no time although every star could begin anywhere. */
    CHECK(!vexi_glob_match((vex_string){.data = many, .size = used},
                           (vex_string){.data = long_text, .size = sizeof long_text}, false));
}

TEST(lookup) {
    vexi_command_map map;
    vexi_command_map_init(&map);
    size_t count;
    const vexi_command *table = vexi_commands(&count);
    for (size_t i = 0; i < count; i++) {
        char upper[32];
        size_t size = strlen(table[i].name);
        for (size_t c = 0; c <= size; c++) {
            upper[c] = table[i].name[c] >= 'a' && table[i].name[c] <= 'z'
                           ? (char)(table[i].name[c] - 32)
                           : table[i].name[c];
        }
        CHECK(vexi_command_find(&map, vexi_string_of(table[i].name)) == &table[i]);
        CHECK(vexi_command_find(&map, vexi_string_of(upper)) == &table[i]);
        CHECK(vexi_command_find(&map, (vex_string){.data = upper, .size = size - 1}) != &table[i]);
        bool merged = table[i].kind == VEXI_KIND_GET || table[i].kind == VEXI_KIND_PUT ||
                      table[i].kind == VEXI_KIND_SEARCH || table[i].kind == VEXI_KIND_DELETE;
        CHECK((table[i].handle == NULL) == merged);
    }
    CHECK(vexi_command_find(&map, vexi_string_of("pin")) == NULL);
    CHECK(vexi_command_find(&map, vexi_string_of("pingg")) == NULL);
    CHECK(vexi_command_find(&map, vexi_string_of("")) == NULL);
    CHECK(vexi_command_find(&map, (vex_string){.data = "ping\0", .size = 5}) == NULL);
}

static void check_timestamp(int64_t us, const char *wanted) {
    char text[41];
    size_t size = vexi_format_timestamp(us, text);
    text[size] = '\0';
    if (strcmp(text, wanted) != 0) {
        fprintf(stderr, "%s, not %s\n", text, wanted);
        exit(1);
    }
}

TEST(timestamps) {
    check_timestamp(0, "1970-01-01T00:00:00Z");
    check_timestamp(-1, "1969-12-31T23:59:59.999999Z");
    check_timestamp(951782400000000, "2000-02-29T00:00:00Z");
    check_timestamp(951868800000000, "2000-03-01T00:00:00Z");
    check_timestamp(1769860800123456, "2026-01-31T12:00:00.123456Z");
    check_timestamp(-62167219200000000, "0000-01-01T00:00:00Z");
    check_timestamp(253402300799999999, "9999-12-31T23:59:59.999999Z");
    check_timestamp(253402300800000000, "253402300800000000");
    check_timestamp(INT64_MIN, "-9223372036854775808");
}

TEST(import_paths) {
    char root[] = "/tmp/vexlake-import-XXXXXX";
    CHECK(mkdtemp(root) != NULL);
    char path[256];
    char inside[256];
    char real[4096];
    snprintf(inside, sizeof inside, "%s/in", root);
    CHECK(mkdir(inside, 0700) == 0);
    snprintf(path, sizeof path, "%s/in-not", root);
    CHECK(mkdir(path, 0700) == 0);
    static const char *const files[] = {"in/a.npy", "in-not/b.npy"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", root, files[i]);
        FILE *file = fopen(path, "w");
        CHECK(file != NULL && fclose(file) == 0);
    }
    char link[256];
    snprintf(link, sizeof link, "%s/in/link", root);
    CHECK(symlink("../in-not/b.npy", link) == 0);
    static vexi_settings settings;
    vexi_settings_defaults(&settings);
    snprintf(path, sizeof path, "%s/in/a.npy", root);
    CHECK_FAILS(VEX_INVALID, vexi_import_path(&settings, vexi_string_of(path), real, sizeof real,
                                              &err)); /* no folder is named */
    settings.import_dir_count = 1;
    snprintf(settings.import_dirs[0], sizeof settings.import_dirs[0], "%s/in/", root);
    CHECK_OK(vexi_import_path(&settings, vexi_string_of(path), real, sizeof real, &err));
    char uri[300];
    snprintf(uri, sizeof uri, "file://%s/in/../in/a.npy", root);
    CHECK_OK(vexi_import_path(&settings, vexi_string_of(uri), real, sizeof real, &err));
    CHECK(strstr(real, "..") == NULL);
    snprintf(path, sizeof path, "%s/in-not/b.npy", root);
    CHECK_FAILS(VEX_INVALID,
                vexi_import_path(&settings, vexi_string_of(path), real, sizeof real, &err));
    snprintf(path, sizeof path, "%s/in/../in-not/b.npy", root);
    CHECK_FAILS(VEX_INVALID,
                vexi_import_path(&settings, vexi_string_of(path), real, sizeof real, &err));
    CHECK_FAILS(VEX_INVALID,
                vexi_import_path(&settings, vexi_string_of(link), real, sizeof real, &err));
    CHECK_FAILS(VEX_INVALID, vexi_import_path(&settings, vexi_string_of("/etc/passwd"), real,
                                              sizeof real, &err));
    CHECK_FAILS(VEX_INVALID,
                vexi_import_path(&settings, vexi_string_of(""), real, sizeof real, &err));
    CHECK_EQ(real[0], '\0');
    snprintf(path, sizeof path, "rm -r %s", root);
    CHECK_EQ(system(path), 0);
}

TEST(secrets) {
    CHECK(vexi_secret_equal(vexi_string_of("abc"), "abc"));
    CHECK(!vexi_secret_equal(vexi_string_of("abd"), "abc"));
    CHECK(!vexi_secret_equal(vexi_string_of("abcabc"), "abc"));
    CHECK(!vexi_secret_equal(vexi_string_of(""), "abc"));
    CHECK(vexi_secret_equal(vexi_string_of(""), ""));
    CHECK(!vexi_secret_equal(vexi_string_of("a"), ""));
}

TEST_MAIN(RUN(patterns); RUN(lookup); RUN(timestamps); RUN(import_paths); RUN(secrets))
