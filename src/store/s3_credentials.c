/* Where a store's settings come from: options, the AWS environment variables, the AWS files.
 *
 * For each setting the first source that has it wins; the keys are taken together from one source,
 * since a secret of one place does not fit an access key of another. Of the AWS files (credentials,
 * and config with its sections named "profile x") the entries of one profile are read; entries that
 * name a way to get keys (roles, single sign-on) are not followed: such keys come by the
 * environment, e.g. from `aws configure export-credentials`.
 *
 * Keys of a profile are read again when the server no longer takes them: whoever renews keys that
 * expire writes the new ones into the file. What is read then is taken as a whole or not at all, so
 * a file that is being written does no harm; those of the environment cannot change. */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/s3_internal.h"

enum { LINE_SIZE_MAX = 8448 };

const char *vexi_s3_environment(void *context, const char *name) {
    (void)context;
    return getenv(name);
}

void vexi_s3_settings_wipe(vexi_s3_settings *settings) {
    explicit_bzero(settings, sizeof *settings);
}

/* NULL for a variable that is not set or empty. */
static const char *ask(vexi_s3_lookup *lookup, void *context, const char *name) {
    const char *value = lookup(context, name);
    return value == NULL || value[0] == '\0' ? NULL : value;
}

static vex_status take(char *out, size_t out_size, const char *value, const char *what,
                       vex_error *err) {
    size_t size = strlen(value);
    if (size >= out_size) {
        return vexi_fail(err, VEX_INVALID, "the S3 %s is longer than %zu bytes", what,
                         out_size - 1);
    }
    for (size_t i = 0; i < size; i++) {
        if (value[i] < 0x21 || value[i] > 0x7e) {
            /* They go into headers and addresses. The value may be a secret: not shown. */
            return vexi_fail(err, VEX_INVALID,
                             "the S3 %s has a space, a line break or another odd character", what);
        }
    }
    memcpy(out, value, size + 1);
    return VEX_OK;
}

/* A path, or the name of a profile, may hold more characters. */
static vex_status take_path(char *out, size_t out_size, const char *value, const char *what,
                            vex_error *err) {
    size_t size = strlen(value);
    if (size >= out_size) {
        return vexi_fail(err, VEX_INVALID, "the %s is longer than %zu bytes", what, out_size - 1);
    }
    memcpy(out, value, size + 1);
    return VEX_OK;
}

/* ---- The AWS files --------------------------------------------------------------------------- */

/* What a profile says; "" where it says nothing. */
typedef struct profile {
    char access_key[256];
    char secret_key[256];
    char session_token[8192];
    char region[64];
    char endpoint[512];
    char ca_file[1024];
    bool was_found;
} profile;

/* Text without white space around it, cut in place. */
static char *trim(char *text) {
    while (*text == ' ' || *text == '\t') {
        text++;
    }
    size_t size = strlen(text);
    while (size > 0 && strchr(" \t\r\n", text[size - 1]) != NULL) {
        size--;
    }
    text[size] = '\0';
    return text;
}

/* A line "[name]" or "[profile name]": whether it begins the wanted profile. */
static bool is_section(char *line, const char *wanted) {
    char *end = strchr(line, ']');
    if (end == NULL) {
        return false;
    }
    *end = '\0';
    char *name = trim(line + 1);
    if (strncmp(name, "profile ", 8) == 0) {
        name = trim(name + 8);
    }
    return strcmp(name, wanted) == 0;
}

static vex_status take_entry(profile *p, const char *key, const char *value, vex_error *err) {
    const struct {
        const char *key;
        char *out;
        size_t size;
        const char *what;
    } entries[] = {
        {"aws_access_key_id", p->access_key, sizeof p->access_key, "access key"},
        {"aws_secret_access_key", p->secret_key, sizeof p->secret_key, "secret key"},
        {"aws_session_token", p->session_token, sizeof p->session_token, "session token"},
        {"region", p->region, sizeof p->region, "region"},
        {"endpoint_url", p->endpoint, sizeof p->endpoint, "endpoint"},
    };
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        /* The credentials file is read first and wins. */
        if (strcmp(key, entries[i].key) == 0 && entries[i].out[0] == '\0') {
            return take(entries[i].out, entries[i].size, value, entries[i].what, err);
        }
    }
    if (strcmp(key, "ca_bundle") == 0 && p->ca_file[0] == '\0') {
        return take_path(p->ca_file, sizeof p->ca_file, value,
                         "path of the certificate authorities", err);
    }
    return VEX_OK;
}

/* Read one file; one that is not there says nothing. */
static vex_status read_file(const char *path, const char *wanted, profile *p, vex_error *err) {
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return VEX_OK;
    }
    char line[LINE_SIZE_MAX];
    vex_status status = VEX_OK;
    bool is_inside = false;
    int64_t number = 0;
    while (status == VEX_OK && fgets(line, sizeof line, file) != NULL) {
        number++;
        if (strchr(line, '\n') == NULL && !feof(file)) {
            status = vexi_fail_row(err, VEX_INVALID, number, "%s:%lld: the line is too long", path,
                                   (long long)number);
            break;
        }
        bool is_indented = line[0] == ' ' || line[0] == '\t';
        char *text = trim(line);
        if (*text == '\0' || *text == '#' || *text == ';') {
            continue;
        }
        if (*text == '[') {
            is_inside = is_section(text, wanted);
            p->was_found = p->was_found || is_inside;
            continue;
        }
        char *equals = strchr(text, '=');
        if (!is_inside || equals == NULL || is_indented) {
            continue; /* indented lines belong to a nested setting */
        }
        *equals = '\0';
        status = take_entry(p, trim(text), trim(equals + 1), err);
        if (status != VEX_OK) {
            status = vexi_prefix(err, status, "%s:%lld", path, (long long)number);
        }
    }
    explicit_bzero(line, sizeof line);
    (void)fclose(file);
    return status;
}

static vex_status read_profile(const vexi_s3_options *options, vexi_s3_lookup *lookup,
                               void *context, profile *out, vexi_s3_settings *settings,
                               vex_error *err) {
    *out = (profile){0};
    const char *wanted = options->profile;
    wanted = wanted != NULL ? wanted : ask(lookup, context, "AWS_PROFILE");
    bool was_named = wanted != NULL;
    wanted = was_named ? wanted : "default";
    VEX_TRY(take_path(settings->keys_profile, sizeof settings->keys_profile, wanted,
                      "profile's name", err));
    static const struct {
        const char *variable;
        const char *name;
    } files[] = {{"AWS_SHARED_CREDENTIALS_FILE", "credentials"}, {"AWS_CONFIG_FILE", "config"}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = settings->keys_files[i];
        size_t room = sizeof settings->keys_files[i];
        const char *named = ask(lookup, context, files[i].variable);
        const char *home = ask(lookup, context, "HOME");
        if (named == NULL && home == NULL) {
            continue;
        }
        int size = named != NULL ? snprintf(path, room, "%s", named)
                                 : snprintf(path, room, "%s/.aws/%s", home, files[i].name);
        if (size < 0 || (size_t)size >= room) {
            return vexi_fail(err, VEX_INVALID, "the path of the AWS %s file is too long",
                             files[i].name);
        }
        VEX_TRY(read_file(path, wanted, out, err));
    }
    if (was_named && !out->was_found) {
        return vexi_fail(err, VEX_INVALID,
                         "there is no profile '%.80s' in the AWS files: check --profile or "
                         "AWS_PROFILE",
                         wanted);
    }
    return VEX_OK;
}

/* ---- Settings -------------------------------------------------------------------------------- */

static vex_status take_uri(const char *uri, vexi_s3_settings *out, vex_error *err) {
    static const char scheme[] = "s3://";
    if (strncmp(uri, scheme, sizeof scheme - 1) != 0) {
        return vexi_fail(err, VEX_INVALID, "'%.200s' is no address like s3://bucket/prefix", uri);
    }
    const char *bucket = uri + sizeof scheme - 1;
    size_t bucket_size = strcspn(bucket, "/");
    if (bucket_size == 0 || bucket_size >= sizeof out->bucket) {
        return vexi_fail(err, VEX_INVALID, "'%.200s' names no bucket of 3 to 63 characters", uri);
    }
    memcpy(out->bucket, bucket, bucket_size);
    out->bucket[bucket_size] = '\0';
    const char *prefix = bucket + bucket_size;
    prefix += *prefix == '/' ? 1 : 0;
    size_t prefix_size = strlen(prefix);
    if (prefix_size > 0 && prefix[prefix_size - 1] == '/') {
        prefix_size--;
    }
    if (prefix_size >= sizeof out->prefix) {
        return vexi_fail(err, VEX_INVALID, "the prefix of '%.200s' is longer than %zu bytes", uri,
                         sizeof out->prefix - 1);
    }
    memcpy(out->prefix, prefix, prefix_size);
    out->prefix[prefix_size] = '\0';
    if (prefix_size > 0 && !vexi_store_name_valid(out->prefix)) {
        return vexi_fail(err, VEX_INVALID,
                         "the prefix of '%.200s' may hold letters, digits and ._~=- between single "
                         "'/' only",
                         uri);
    }
    return VEX_OK;
}

/* The first that is not NULL and not empty, or NULL. */
static const char *first_of(const char *a, const char *b, const char *c, const char *d) {
    const char *const all[] = {a, b, c, d};
    for (size_t i = 0; i < 4; i++) {
        if (all[i] != NULL && all[i][0] != '\0') {
            return all[i];
        }
    }
    return NULL;
}

static vex_status take_keys(const vexi_s3_options *options, vexi_s3_lookup *lookup, void *context,
                            const profile *p, vexi_s3_settings *out, vex_error *err) {
    const char *access_key = NULL, *secret_key = NULL, *token = NULL, *source = "";
    if (options->access_key != NULL || options->secret_key != NULL) {
        access_key = options->access_key;
        secret_key = options->secret_key;
        token = options->session_token;
        source = "the options";
    } else if (options->profile == NULL &&
               (ask(lookup, context, "AWS_ACCESS_KEY_ID") != NULL ||
                ask(lookup, context, "AWS_SECRET_ACCESS_KEY") != NULL)) {
        access_key = ask(lookup, context, "AWS_ACCESS_KEY_ID");
        secret_key = ask(lookup, context, "AWS_SECRET_ACCESS_KEY");
        token = ask(lookup, context, "AWS_SESSION_TOKEN");
        source = "the environment";
    } else {
        access_key = first_of(p->access_key, NULL, NULL, NULL);
        secret_key = first_of(p->secret_key, NULL, NULL, NULL);
        token = first_of(p->session_token, NULL, NULL, NULL);
        source = "the AWS files";
    }
    if (access_key == NULL && secret_key == NULL) {
        return vexi_fail(err, VEX_INVALID,
                         "no S3 keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or put them "
                         "into ~/.aws/credentials");
    }
    if (access_key == NULL || secret_key == NULL) {
        return vexi_fail(err, VEX_INVALID, "%s gives an S3 %s key but no %s key", source,
                         access_key != NULL ? "access" : "secret",
                         access_key != NULL ? "secret" : "access");
    }
    if (access_key != p->access_key) { /* not of the files, so these are not asked again */
        out->keys_profile[0] = '\0';
    }
    VEX_TRY(take(out->access_key, sizeof out->access_key, access_key, "access key", err));
    VEX_TRY(take(out->secret_key, sizeof out->secret_key, secret_key, "secret key", err));
    if (token != NULL) {
        VEX_TRY(take(out->session_token, sizeof out->session_token, token, "session token", err));
    }
    return VEX_OK;
}

static vex_status load(const char *uri, const vexi_s3_options *options, vexi_s3_lookup *lookup,
                       void *context, profile *p, vexi_s3_settings *out, vex_error *err) {
    VEX_TRY(take_uri(uri, out, err));
    VEX_TRY(read_profile(options, lookup, context, p, out, err));
    VEX_TRY(take_keys(options, lookup, context, p, out, err));
    const char *region = first_of(options->region, ask(lookup, context, "AWS_REGION"),
                                  ask(lookup, context, "AWS_DEFAULT_REGION"), p->region);
    VEX_TRY(take(out->region, sizeof out->region, region == NULL ? "us-east-1" : region, "region",
                 err));
    const char *endpoint = first_of(options->endpoint, ask(lookup, context, "AWS_ENDPOINT_URL_S3"),
                                    ask(lookup, context, "AWS_ENDPOINT_URL"), p->endpoint);
    if (endpoint != NULL) {
        VEX_TRY(take(out->endpoint, sizeof out->endpoint, endpoint, "endpoint", err));
    }
    const char *ca_file =
        first_of(options->ca_file, ask(lookup, context, "AWS_CA_BUNDLE"), p->ca_file, NULL);
    if (ca_file != NULL) {
        VEX_TRY(take_path(out->ca_file, sizeof out->ca_file, ca_file,
                          "path of the certificate authorities", err));
    }
    out->insecure = options->insecure;
    out->virtual_host = options->virtual_host;
    vexi_s3_address address;
    return vexi_s3_address_make(out, &address, err);
}

vex_status vexi_s3_settings_load(const char *uri, const vexi_s3_options *options,
                                 vexi_s3_lookup *lookup, void *context, vexi_s3_settings *out,
                                 vex_error *err) {
    *out = (vexi_s3_settings){0};
    VEX_ASSERT(options->size == sizeof *options);
    profile p;
    vex_status status = load(uri, options, lookup, context, &p, out, err);
    explicit_bzero(&p, sizeof p);
    if (status != VEX_OK) {
        vexi_s3_settings_wipe(out);
    }
    return status;
}

/* Nothing of a longer secret stays behind a shorter one. `value` is of a field of the same size. */
static void replace(char *out, size_t out_size, const char *value) {
    explicit_bzero(out, out_size);
    memcpy(out, value, strlen(value));
}

void vexi_s3_settings_renew_keys(vexi_s3_settings *settings, bool *changed) {
    *changed = false;
    if (settings->keys_profile[0] == '\0') {
        return;
    }
    profile p = {0};
    vex_status status = VEX_OK;
    for (size_t i = 0; status == VEX_OK && i < 2; i++) {
        if (settings->keys_files[i][0] != '\0') {
            status = read_file(settings->keys_files[i], settings->keys_profile, &p, NULL);
        }
    }
    bool is_whole = status == VEX_OK && p.access_key[0] != '\0' && p.secret_key[0] != '\0';
    if (is_whole && (strcmp(p.access_key, settings->access_key) != 0 ||
                     strcmp(p.secret_key, settings->secret_key) != 0 ||
                     strcmp(p.session_token, settings->session_token) != 0)) {
        replace(settings->access_key, sizeof settings->access_key, p.access_key);
        replace(settings->secret_key, sizeof settings->secret_key, p.secret_key);
        replace(settings->session_token, sizeof settings->session_token, p.session_token);
        *changed = true;
    }
    explicit_bzero(&p, sizeof p);
}
