/* Where keys, region and endpoint come from, and that no message shows a secret. */
#include "check.h"
#include "store/s3_internal.h"
#include "store/test_folder.h"

/* An environment of a test: pairs of name and value, ended by NULL. */
static const char *look_up(void *context, const char *name) {
    const char *const *pairs = context;
    for (; pairs[0] != NULL; pairs += 2) {
        if (strcmp(pairs[0], name) == 0) {
            return pairs[1];
        }
    }
    return NULL;
}

static vex_status load(const char *uri, const vexi_s3_options *options, const char *const *pairs,
                       vexi_s3_settings *out, vex_error *err) {
    return vexi_s3_settings_load(uri, options, look_up, (void *)(uintptr_t)pairs, out, err);
}

static const vexi_s3_options no_options = {.size = sizeof no_options};

static void write_text(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

TEST(environment) {
    static const char *const pairs[] = {"AWS_ACCESS_KEY_ID",
                                        "AK",
                                        "AWS_SECRET_ACCESS_KEY",
                                        "SK",
                                        "AWS_SESSION_TOKEN",
                                        "TOKEN",
                                        "AWS_REGION",
                                        "eu-north-1",
                                        "AWS_DEFAULT_REGION",
                                        "ignored",
                                        "AWS_ENDPOINT_URL",
                                        "http://h:1",
                                        "AWS_CA_BUNDLE",
                                        "/etc/ca file.pem",
                                        NULL};
    vexi_s3_settings s;
    CHECK_OK(load("s3://bucket/some/prefix/", &no_options, pairs, &s, &err));
    CHECK(strcmp(s.bucket, "bucket") == 0 && strcmp(s.prefix, "some/prefix") == 0);
    CHECK(strcmp(s.access_key, "AK") == 0 && strcmp(s.secret_key, "SK") == 0);
    CHECK(strcmp(s.session_token, "TOKEN") == 0 && strcmp(s.region, "eu-north-1") == 0);
    CHECK(strcmp(s.endpoint, "http://h:1") == 0 && strcmp(s.ca_file, "/etc/ca file.pem") == 0);
    CHECK(!s.insecure && !s.virtual_host);
    /* Options win, and their keys do not mix with the environment's token. */
    vexi_s3_options options = {.size = sizeof options,
                               .endpoint = "https://other",
                               .region = "r",
                               .access_key = "AK2",
                               .secret_key = "SK2"};
    CHECK_OK(load("s3://bucket", &options, pairs, &s, &err));
    CHECK(strcmp(s.access_key, "AK2") == 0 && strcmp(s.secret_key, "SK2") == 0);
    CHECK(s.session_token[0] == '\0' && s.prefix[0] == '\0');
    CHECK(strcmp(s.endpoint, "https://other") == 0 && strcmp(s.region, "r") == 0);
    options.secret_key = NULL;
    CHECK_FAILS(VEX_INVALID, load("s3://bucket", &options, pairs, &s, &err));
}

TEST(files) {
    vex_test_folder folder = vex_test_folder_make();
    char path[128];
    snprintf(path, sizeof path, "%s/.aws", folder.path);
    CHECK_EQ(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/.aws/credentials", folder.path);
    write_text(path, "# keys\n[default]\naws_access_key_id = AKD\r\naws_secret_access_key=SKD\n"
                     "\n[ work ]\n  aws_access_key_id = NESTED\naws_access_key_id=AKW\n"
                     "aws_secret_access_key = SK/W+=\naws_session_token=TW==\nnoise\n[x\n");
    snprintf(path, sizeof path, "%s/.aws/config", folder.path);
    write_text(path, "[default]\nregion = r1\n[profile work]\nregion=r2\n"
                     "endpoint_url = http://work:1\nca_bundle = /ca\naws_access_key_id = LATER\n");
    const char *const pairs[] = {"HOME", folder.path, NULL};
    vexi_s3_settings s;
    CHECK_OK(load("s3://bucket/p", &no_options, pairs, &s, &err));
    CHECK(strcmp(s.access_key, "AKD") == 0 && strcmp(s.secret_key, "SKD") == 0);
    CHECK(strcmp(s.region, "r1") == 0 && s.endpoint[0] == '\0');
    const char *const work[] = {"HOME", folder.path, "AWS_PROFILE", "work", NULL};
    CHECK_OK(load("s3://bucket/p", &no_options, work, &s, &err));
    CHECK(strcmp(s.access_key, "AKW") == 0 && strcmp(s.secret_key, "SK/W+=") == 0);
    CHECK(strcmp(s.session_token, "TW==") == 0 && strcmp(s.region, "r2") == 0);
    CHECK(strcmp(s.endpoint, "http://work:1") == 0 && strcmp(s.ca_file, "/ca") == 0);
    /* The environment's keys win over a profile that it names, not over one that an option names.
     */
    const char *const both[] = {
        "HOME", folder.path, "AWS_ACCESS_KEY_ID", "AKE", "AWS_SECRET_ACCESS_KEY", "SKE", NULL};
    CHECK_OK(load("s3://bucket/p", &no_options, both, &s, &err));
    CHECK(strcmp(s.access_key, "AKE") == 0 && strcmp(s.region, "r1") == 0);
    vexi_s3_options options = {.size = sizeof options, .profile = "work"};
    CHECK_OK(load("s3://bucket/p", &options, both, &s, &err));
    CHECK(strcmp(s.access_key, "AKW") == 0);
    options.profile = "absent";
    CHECK_FAILS(VEX_INVALID, load("s3://bucket/p", &options, both, &s, &err));
    /* Files elsewhere. */
    const char *const named[] = {"AWS_SHARED_CREDENTIALS_FILE", path, "AWS_PROFILE", "work", NULL};
    CHECK_FAILS(VEX_INVALID, load("s3://bucket/p", &no_options, named, &s, &err));
    vex_test_folder_remove(&folder);
}

/* Keys of a profile are read again when asked; those of the environment are not. */
TEST(renewed_keys) {
    vex_test_folder folder = vex_test_folder_make();
    char path[128];
    snprintf(path, sizeof path, "%s/keys", folder.path);
    const char *const pairs[] = {"AWS_SHARED_CREDENTIALS_FILE", path, "AWS_PROFILE", "p", NULL};
    write_text(path, "[p]\naws_access_key_id=AK1\naws_secret_access_key=SK1LONG\n"
                     "aws_session_token=T1\n");
    vexi_s3_settings s;
    CHECK_OK(load("s3://bucket", &no_options, pairs, &s, &err));
    bool changed = true;
    vexi_s3_settings_renew_keys(&s, &changed);
    CHECK(!changed);
    /* What is not whole, or not there, changes nothing. */
    static const char *const broken[] = {"", "[p]\naws_access_key_id=AK2\n",
                                         "[other]\naws_access_key_id=AK2\n"
                                         "aws_secret_access_key=SK2\n",
                                         "[p]\naws_access_key_id=AK2\n"
                                         "aws_secret_access_key=S K2\n"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        write_text(path, broken[i]);
        vexi_s3_settings_renew_keys(&s, &changed);
        CHECK(!changed && strcmp(s.access_key, "AK1") == 0 && strcmp(s.secret_key, "SK1LONG") == 0);
    }
    CHECK_EQ(remove(path), 0);
    vexi_s3_settings_renew_keys(&s, &changed);
    CHECK(!changed && strcmp(s.session_token, "T1") == 0);
    write_text(path, "[p]\naws_access_key_id=AK2\naws_secret_access_key=SK2\n");
    vexi_s3_settings_renew_keys(&s, &changed);
    CHECK(changed && strcmp(s.access_key, "AK2") == 0 && strcmp(s.secret_key, "SK2") == 0);
    CHECK(s.session_token[0] == '\0' && s.secret_key[4] == '\0');
    const char *const both[] = {
        "AWS_SHARED_CREDENTIALS_FILE", path,  "AWS_PROFILE", "p", "AWS_ACCESS_KEY_ID", "AKE",
        "AWS_SECRET_ACCESS_KEY",       "SKE", NULL};
    CHECK_OK(load("s3://bucket", &no_options, both, &s, &err));
    vexi_s3_settings_renew_keys(&s, &changed);
    CHECK(!changed && strcmp(s.access_key, "AKE") == 0);
    vex_test_folder_remove(&folder);
}

/* Every wrong input is named, and nothing of a secret stands in the message. */
TEST(wrong_inputs) {
    static char long_secret[9000];
    memset(long_secret, 'S', sizeof long_secret - 1);
    static const char *const wrong_uris[] = {"",
                                             "bucket",
                                             "s3:/b",
                                             "s3://",
                                             "s3:///x",
                                             "s3://ab",
                                             "s3://AB-C",
                                             "s3://bucket//x",
                                             "s3://bucket/../x",
                                             "s3://bucket/a b",
                                             "file://x"};
    static const char *const good[] = {"AWS_ACCESS_KEY_ID", "AK", "AWS_SECRET_ACCESS_KEY", "SK",
                                       NULL};
    vexi_s3_settings s;
    for (size_t i = 0; i < sizeof wrong_uris / sizeof *wrong_uris; i++) {
        CHECK_FAILS(VEX_INVALID, load(wrong_uris[i], &no_options, good, &s, &err));
    }
    static const char *const none[] = {NULL};
    CHECK_FAILS(VEX_INVALID, load("s3://bucket", &no_options, none, &s, &err));
    const char *const secrets[] = {"SECRET with space", "SECRET\nline", "SECRET\x7f", long_secret};
    for (size_t i = 0; i < 4; i++) {
        const char *const pairs[] = {"AWS_ACCESS_KEY_ID", "AK", "AWS_SECRET_ACCESS_KEY", secrets[i],
                                     NULL};
        vex_error err;
        CHECK(load("s3://bucket", &no_options, pairs, &s, &err) == VEX_INVALID);
        CHECK(strstr(err.message, "SECRET") == NULL && strstr(err.message, "SSSS") == NULL);
        CHECK(s.secret_key[0] == '\0');
    }
    static const char *const endpoints[] = {
        "AWS_ACCESS_KEY_ID",       "AK", "AWS_SECRET_ACCESS_KEY", "SK", "AWS_ENDPOINT_URL",
        "http://user:SECRET@host", NULL};
    vex_error err;
    CHECK(load("s3://bucket", &no_options, endpoints, &s, &err) == VEX_INVALID);
    CHECK(strstr(err.message, "SECRET") == NULL);
}

TEST_MAIN(RUN(environment); RUN(files); RUN(renewed_keys); RUN(wrong_inputs))
