#include "server/settings.h"

#include "check.h"

static vex_status parse(vexi_settings *settings, vexi_settings_request *request, vex_error *err,
                        const char *line) {
    static char words[32][256];
    char *argv[32];
    int argc = 0;
    while (*line != '\0') {
        size_t size = strcspn(line, " ");
        snprintf(words[argc], sizeof words[0], "%.*s", (int)size, line);
        argv[argc] = words[argc];
        argc++;
        line += size + (line[size] == ' ' ? 1 : 0);
    }
    return vexi_settings_parse(settings, argc, argv, request, err);
}

TEST(flags) {
    static vexi_settings settings;
    vexi_settings_request request;
    CHECK_OK(parse(&settings, &request, &err,
                   "serve --port 7000 --lake=mem:// --durability interval --flush-size 128mb "
                   "--import-dir /a --import-dir /b --read-only --memory 2g"));
    CHECK_EQ(settings.port, 7000);
    CHECK_EQ(settings.http_port, VEXI_PORT_OFF);
    CHECK(strcmp(settings.lake, "mem://") == 0);
    CHECK_EQ(settings.durability, VEX_DURABILITY_INTERVAL);
    CHECK_EQ(settings.flush_size_bytes, 128 << 20);
    CHECK_EQ(settings.memory_bytes, 2LL << 30);
    CHECK_EQ(settings.import_dir_count, 2);
    CHECK(strcmp(settings.import_dirs[1], "/b") == 0);
    CHECK_EQ(settings.read_only, 1);
    CHECK(!request.help);
    CHECK_OK(parse(&settings, &request, &err, "serve"));
    CHECK_EQ(settings.port, 6390);
    CHECK_EQ(settings.durability, VEX_DURABILITY_DEFAULT);
    CHECK(strcmp(settings.bind, "127.0.0.1") == 0);
    CHECK_OK(parse(&settings, &request, &err, "serve --http-port 9390"));
    CHECK_EQ(settings.http_port, 9390);
    CHECK_OK(parse(&settings, &request, &err, "serve --http-port 0 --http-port off"));
    CHECK_EQ(settings.http_port, VEXI_PORT_OFF);
    CHECK_OK(parse(&settings, &request, &err, "serve --help"));
    CHECK(request.help);
}

TEST(bad_flags) {
    static const struct {
        const char *line;
        const char *says;
    } bad[] = {{"serve --prot 1", "unknown flag '--prot'"},
               {"serve 6390", "unexpected argument '6390'"},
               {"serve --port", "--port needs a value"},
               {"serve --port x", "port: 'x' is not a number from 0 to 65535"},
               {"serve --port 65536", "port: '65536'"},
               {"serve --http-port on", "http-port: 'on' is not a number from 0 to 65535 or off"},
               {"serve --port 1k", "port: '1k'"},
               {"serve --port 99999999999999999999", "port: "},
               {"serve --flush-size 64tb", "flush-size: '64tb'"},
               {"serve --flush-size 1", "flush-size: '1'"},
               {"serve --durability sometimes", "none of auto|always|interval|lake"},
               {"serve --read-only=maybe", "neither yes nor no"},
               {"serve --config /nonexistent/file", "cannot read /nonexistent/file"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        static vexi_settings settings;
        vexi_settings_request request;
        vex_error err;
        CHECK(parse(&settings, &request, &err, bad[i].line) != VEX_OK);
        if (strstr(err.message, bad[i].says) == NULL) {
            fprintf(stderr, "%s: '%s'\n", bad[i].line, err.message);
            exit(1);
        }
    }
}

TEST(files) {
    static vexi_settings settings;
    vexi_settings_defaults(&settings);
    const char *text = "# a comment\n\nport 7001\r\n  requirepass  two words \nread-only yes\n"
                       "import-dir /data";
    CHECK_OK(vexi_settings_parse_text(&settings, text, strlen(text), "vexlake.conf", &err));
    CHECK_EQ(settings.port, 7001);
    CHECK(strcmp(settings.requirepass, "two words") == 0);
    CHECK_EQ(settings.read_only, 1);
    CHECK(strcmp(settings.import_dirs[0], "/data") == 0);
    vex_error err;
    text = "port 1\ncolour red\n";
    CHECK(vexi_settings_parse_text(&settings, text, strlen(text), "f", &err) == VEX_INVALID);
    CHECK(strcmp(err.message, "f:2: unknown key 'colour'") == 0);
    text = "port\n";
    CHECK(vexi_settings_parse_text(&settings, text, strlen(text), "f", &err) == VEX_INVALID);
    CHECK(strstr(err.message, "f:1: port: ''") != NULL);
    /* A file cannot name another. */
    text = "config other\n";
    CHECK(vexi_settings_parse_text(&settings, text, strlen(text), "f", &err) == VEX_INVALID);
}

TEST(a_password_never_shows) {
    static vexi_settings settings;
    vexi_settings_defaults(&settings);
    const char *text = "requirepass secret-word\nimport-dir /a\nimport-dir /b\n";
    CHECK_OK(vexi_settings_parse_text(&settings, text, strlen(text), "f", &err));
    const char *name;
    char value[4096];
    size_t count = 0;
    for (; vexi_settings_at(&settings, count, &name, value, sizeof value); count++) {
        CHECK(strstr(value, "secret") == NULL);
        if (strcmp(name, "import-dir") == 0) {
            CHECK(strcmp(value, "/a /b") == 0);
        }
        if (strcmp(name, "log-level") == 0) {
            CHECK(strcmp(value, "info") == 0);
        }
    }
    CHECK(count > 10);
    vexi_buffer help;
    vexi_buffer_init(&help, vex_test_env(), 1 << 20);
    vexi_settings_help(&help);
    vexi_buffer_u8(&help, 0);
    CHECK(!help.failed && strstr((char *)help.data, "--requirepass PASSWORD") != NULL);
    vexi_buffer_deinit(&help);
}

TEST_MAIN(RUN(flags); RUN(bad_flags); RUN(files); RUN(a_password_never_shows))
