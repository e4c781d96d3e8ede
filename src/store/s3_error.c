/* What an answer means: done, or failed in which way, with which status and which words.
 *
 * A failure says what to change where a person can change something: bucket, keys, region, clock,
 * certificate. Such answers are VEX_INVALID and final. Answers that may be different next time
 * (5xx, a broken connection, a body that ends early) are worth another attempt. Keys, tokens and
 * signatures never stand in a message; the text of a server's <Message> is shown only where
 * nothing better is known, and servers put no secrets there (AWS shows the access key id, in a
 * field of its own that is not read). */
#include <curl/curl.h>
#include <openssl/x509_vfy.h>

#include "store/s3_internal.h"

enum { CLOCK_SKEW_SECONDS = 900 }; /* what servers bear */

static vexi_s3_failure give(vexi_s3_failure failure, vex_status given, vex_status *status) {
    *status = given;
    return failure;
}

#define EXPIRED_TOKEN                                                                              \
    "says that the session token has expired: put new keys into the profile, or start again with " \
    "a new AWS_SESSION_TOKEN"

/* Codes that are the settings' fault, and what to change. Each takes the server's address. Where
 * other keys may be all it takes, the keys are looked at once more (see s3_client.c). */
static const struct {
    const char *code;
    vexi_s3_failure failure;
    const char *advice;
} advices[] = {
    {"InvalidAccessKeyId", VEXI_S3_KEYS,
     "does not know this access key: check AWS_ACCESS_KEY_ID, or the profile"},
    {"XAdminUserNotFound", VEXI_S3_KEYS,
     "does not know this access key: check AWS_ACCESS_KEY_ID, or the profile"},
    {"SignatureDoesNotMatch", VEXI_S3_KEYS,
     "finds the signature wrong: the secret key does not belong to the access key; check "
     "AWS_SECRET_ACCESS_KEY, or the profile"},
    {"ExpiredToken", VEXI_S3_KEYS, EXPIRED_TOKEN},
    {"ExpiredTokenException", VEXI_S3_KEYS, EXPIRED_TOKEN},
    {"TokenRefreshRequired", VEXI_S3_KEYS, EXPIRED_TOKEN},
    {"InvalidToken", VEXI_S3_KEYS,
     "does not accept the session token: check AWS_SESSION_TOKEN, or the profile"},
    {"InvalidTokenId", VEXI_S3_KEYS,
     "does not accept the session token: check AWS_SESSION_TOKEN, or the profile"},
    {"InvalidBucketName", VEXI_S3_FINAL,
     "says that the bucket's name is not allowed: check the lake's address"},
    {"AllAccessDisabled", VEXI_S3_FINAL, "has disabled all access to the bucket"},
    {"NotImplemented", VEXI_S3_FINAL, "does not know this operation: it is no complete S3 server"},
};

/* Whether a 404 means that the object is not there. A bucket or, for some servers, an access key
 * that does not exist is a 404 too, and a lake must not be taken for empty then. */
static bool is_object_missing(const char *code) {
    static const char *const codes[] = {"", "NoSuchKey", "NoSuchUpload", "NoSuchVersion",
                                        "NotFound"};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        if (strcmp(code, codes[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* "Slow down", as AWS says it, MinIO (SlowDownRead) and others. */
static bool is_throttling(int http, const char *code) {
    static const char *const codes[] = {"TooManyRequests", "RequestLimitExceeded", "Throttling",
                                        "ThrottlingException", "ServerBusy"};
    bool is_named = strncmp(code, "SlowDown", 8) == 0;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        is_named = is_named || strcmp(code, codes[i]) == 0;
    }
    return is_named || http == 429;
}

/* Codes by which servers that keep objects as files say that a name is both object and folder. */
static bool is_object_and_folder(const char *code) {
    static const char *const codes[] = {"ObjectParentIsFile",           "ExistingObjectIsDirectory",
                                        "ExistingObjectIsFile",         "ParentIsFile",
                                        "DirectoryObjectContainsData",  "XMinioParentIsObject",
                                        "XMinioObjectExistsAsDirectory"};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        if (strcmp(code, codes[i]) == 0) {
            return true;
        }
    }
    return false;
}

static vexi_s3_failure judge_refusal(const vexi_s3_transfer *t, const vexi_s3_settings *settings,
                                     const vexi_s3_address *address, int64_t now_seconds,
                                     vex_status *status, vex_error *err) {
    const vexi_s3_answer_error *error = &t->answer.error;
    const char *what = t->call->what;
    int http = t->answer.http_status;
    const char *code = error->code;
    long long ahead = t->server_time == 0 ? 0 : (long long)(now_seconds - t->server_time);
    bool is_skewed = ahead > CLOCK_SKEW_SECONDS || ahead < -CLOCK_SKEW_SECONDS;
    if (strcmp(code, "RequestTimeTooSkewed") == 0 && !is_skewed) {
        /* The answer's date is missing, or somebody's on the way. */
        return give(VEXI_S3_FINAL,
                    vexi_fail_code(err, VEX_INVALID, http,
                                   "%s: the clocks of this machine and of %s differ by more than a "
                                   "quarter of an hour: set them",
                                   what, address->base),
                    status);
    }
    if (is_skewed && (http == 403 || strcmp(code, "RequestTimeTooSkewed") == 0)) {
        return give(VEXI_S3_FINAL,
                    vexi_fail_code(err, VEX_INVALID, http,
                                   "%s: this machine's clock is %lld s %s the clock of %s: set it",
                                   what, ahead < 0 ? -ahead : ahead,
                                   ahead < 0 ? "behind" : "ahead of", address->base),
                    status);
    }
    if (strcmp(code, "NoSuchBucket") == 0) {
        return give(VEXI_S3_FINAL,
                    vexi_fail_code(err, VEX_INVALID, http,
                                   "there is no bucket '%s' at %s: create it, or correct the "
                                   "lake's address",
                                   settings->bucket, address->base),
                    status);
    }
    for (size_t i = 0; i < sizeof advices / sizeof *advices; i++) {
        if (strcmp(code, advices[i].code) == 0) {
            return give(advices[i].failure,
                        vexi_fail_code(err, VEX_INVALID, http, "%s: %s %s", what, address->base,
                                       advices[i].advice),
                        status);
        }
    }
    bool is_elsewhere = http == 301 || http == 307 || http == 308 ||
                        strcmp(code, "PermanentRedirect") == 0 ||
                        strcmp(code, "TemporaryRedirect") == 0 ||
                        strcmp(code, "AuthorizationHeaderMalformed") == 0 ||
                        strcmp(code, "IllegalLocationConstraintException") == 0;
    if (is_elsewhere && error->region[0] != '\0') {
        return give(VEXI_S3_FINAL,
                    vexi_fail_code(err, VEX_INVALID, http,
                                   "bucket '%s' lies in region %s, not %s: set AWS_REGION=%s",
                                   settings->bucket, error->region, settings->region,
                                   error->region),
                    status);
    }
    if (is_elsewhere) {
        return give(VEXI_S3_FINAL,
                    vexi_fail_code(err, VEX_INVALID, http,
                                   "%s: %s refers to another place (%d %s): check AWS_REGION and "
                                   "AWS_ENDPOINT_URL",
                                   what, address->base, http, code),
                    status);
    }
    if (http == 400 && code[0] == '\0' && !address->is_https) {
        return give(VEXI_S3_FINAL,
                    vexi_fail_code(err, VEX_INVALID, http,
                                   "%s: %s does not answer as an S3 server (400): does it speak "
                                   "https at this port? Check --endpoint or AWS_ENDPOINT_URL",
                                   what, address->base),
                    status);
    }
    if (http == 401 || http == 403) {
        return give(VEXI_S3_KEYS,
                    vexi_fail_code(err, VEX_INVALID, http,
                                   "%s: %s denies access to bucket '%s' (%d %s): check its name, "
                                   "the keys, and what they may do there",
                                   what, address->base, settings->bucket, http, code),
                    status);
    }
    return give(VEXI_S3_FINAL,
                vexi_fail_code(err, VEX_IO, http, "%s: %s answered %d %s%s%s", what, address->base,
                               http, code, error->message[0] == '\0' ? "" : ": ", error->message),
                status);
}

static vexi_s3_failure judge_http(const vexi_s3_transfer *t, const vexi_s3_settings *settings,
                                  const vexi_s3_address *address, int64_t now_seconds,
                                  vex_status *status, vex_error *err) {
    const char *what = t->call->what;
    const char *code = t->answer.error.code;
    int http = t->answer.http_status;
    if (is_throttling(http, code) || (http == 503 && t->retry_after_ms > 0)) {
        return give(VEXI_S3_THROTTLED,
                    vexi_fail_code(err, VEXI_S3_UNAVAILABLE, http,
                                   "store unavailable: %s: %s is overloaded (%d %s)", what,
                                   address->base, http, code),
                    status);
    }
    if (http >= 500 && strcmp(code, "NotImplemented") != 0) {
        if (http == 507 || strcmp(code, "XMinioStorageFull") == 0) {
            return give(VEXI_S3_FINAL,
                        vexi_fail_code(err, VEX_FULL, http, "%s: %s has no space left", what,
                                       address->base),
                        status);
        }
        return give(VEXI_S3_AGAIN,
                    vexi_fail_code(err, VEXI_S3_UNAVAILABLE, http,
                                   "store unavailable: %s: %s answered %d %s", what, address->base,
                                   http, code),
                    status);
    }
    if (http == 408 || strcmp(code, "RequestTimeout") == 0 || strcmp(code, "BadDigest") == 0 ||
        strcmp(code, "InvalidDigest") == 0 || strcmp(code, "IncompleteBody") == 0 ||
        strcmp(code, "XAmzContentChecksumMismatch") == 0) {
        return give(VEXI_S3_AGAIN,
                    vexi_fail_code(err, VEXI_S3_UNAVAILABLE, http,
                                   "%s: the bytes did not reach %s whole (%d %s)", what,
                                   address->base, http, code),
                    status);
    }
    if (http == 404 && is_object_missing(code)) {
        return give(VEXI_S3_FINAL,
                    vexi_fail_code(err, VEX_NOT_FOUND, http, "%s does not exist", what), status);
    }
    if (http == 412) {
        return give(VEXI_S3_FINAL, vexi_fail_code(err, VEX_EXISTS, http, "%s exists already", what),
                    status);
    }
    if (http == 416) {
        return give(VEXI_S3_FINAL,
                    vexi_fail_code(
                        err, VEX_CORRUPT, http, "%s: bytes %llu to %llu lie behind its end", what,
                        (unsigned long long)t->call->start, (unsigned long long)t->call->end),
                    status);
    }
    if (is_object_and_folder(code)) {
        return give(
            VEXI_S3_FINAL,
            vexi_fail_code(err, VEX_INVALID, http, "%s would be both an object and a folder", what),
            status);
    }
    if (http == 409) { /* a conditional write beside another one: ask again */
        return give(VEXI_S3_AGAIN,
                    vexi_fail_code(err, VEXI_S3_UNAVAILABLE, http, "%s: %s answered 409 %s", what,
                                   address->base, code),
                    status);
    }
    return judge_refusal(t, settings, address, now_seconds, status, err);
}

/* `code` is OpenSSL's. It is happy, or was not asked to the end, where libcurl itself found that
 * the certificate is for another host. */
static vex_status judge_certificate(long code, const vexi_s3_address *address, vex_error *err) {
    switch (code) {
    case X509_V_OK:
    case X509_V_ERR_UNSPECIFIED:
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return vexi_fail(err, VEX_INVALID,
                         "the certificate of %s is for another host: name the server in --endpoint "
                         "or AWS_ENDPOINT_URL as its certificate does",
                         address->base);
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return vexi_fail(err, VEX_INVALID,
                         "the certificate of %s is not valid at this time (%s): renew it, or set "
                         "this machine's clock",
                         address->base, X509_verify_cert_error_string(code));
    default:
        return vexi_fail(err, VEX_INVALID,
                         "the certificate of %s is not trusted (%s): name the file of its "
                         "authority by --ca-file or AWS_CA_BUNDLE",
                         address->base, X509_verify_cert_error_string(code));
    }
}

static vexi_s3_failure judge_curl(const vexi_s3_transfer *t, int code, const char *timeout_text,
                                  const vexi_s3_settings *settings, const vexi_s3_address *address,
                                  vex_status *status, vex_error *err) {
    const char *what = t->call->what;
    vexi_s3_failure broken = t->answer.http_status != 0 ? VEXI_S3_AGAIN : VEXI_S3_UNREACHABLE;
    if (timeout_text != NULL) {
        return give(broken,
                    vexi_fail(err, VEXI_S3_UNAVAILABLE, "store unavailable: %s: %s: %s", what,
                              address->base, timeout_text),
                    status);
    }
    switch (code) {
    case CURLE_OUT_OF_MEMORY:
        return give(VEXI_S3_FINAL, vexi_no_memory(err, t->received_size), status);
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return give(VEXI_S3_UNSENT,
                    vexi_fail(err, VEXI_S3_UNAVAILABLE,
                              "store unavailable: no host of the name in %s: check --endpoint or "
                              "AWS_ENDPOINT_URL",
                              address->base),
                    status);
    case CURLE_COULDNT_CONNECT:
        return give(VEXI_S3_UNSENT,
                    vexi_fail(err, VEXI_S3_UNAVAILABLE,
                              "store unavailable: %s: nothing answers at %s: is the server "
                              "running, and is the address right?",
                              what, address->base),
                    status);
    case CURLE_PEER_FAILED_VERIFICATION:
        return give(VEXI_S3_FINAL, judge_certificate(t->certificate, address, err), status);
    case CURLE_SSL_CACERT_BADFILE:
        return give(VEXI_S3_FINAL,
                    vexi_fail(err, VEX_INVALID,
                              "the file of certificate authorities %s cannot be read, or holds "
                              "none: check --ca-file or AWS_CA_BUNDLE",
                              settings->ca_file),
                    status);
    case CURLE_SSL_CONNECT_ERROR:
        return give(VEXI_S3_UNSENT,
                    vexi_fail(err, VEXI_S3_UNAVAILABLE,
                              "store unavailable: no TLS connection to %s: does the server speak "
                              "https at this port?",
                              address->base),
                    status);
    case CURLE_OPERATION_TIMEDOUT: /* the only timeout that libcurl watches is that of connecting */
        return give(VEXI_S3_UNSENT,
                    vexi_fail(err, VEXI_S3_UNAVAILABLE,
                              "store unavailable: %s: no connection to %s within %u ms", what,
                              address->base, settings->connect_timeout_ms),
                    status);
    default: {
        /* What servers of https do that are spoken to in plain http. */
        bool may_want_https = !address->is_https && t->answer.http_status == 0 &&
                              (code == CURLE_GOT_NOTHING || code == CURLE_RECV_ERROR ||
                               code == CURLE_UNSUPPORTED_PROTOCOL);
        return give(broken,
                    vexi_fail(err, VEXI_S3_UNAVAILABLE, "store unavailable: %s: %s: %s%s", what,
                              address->base, curl_easy_strerror((CURLcode)code),
                              may_want_https ? ": does it speak https at this port?" : ""),
                    status);
    }
    }
}

/* An answer of success: is all of it there? */
static vexi_s3_failure judge_success(const vexi_s3_transfer *t, const vexi_s3_address *address,
                                     vex_status *status, vex_error *err) {
    const vexi_s3_call *call = t->call;
    if (call->sink != VEXI_S3_SINK_RANGES || !call->is_ranged) {
        *status = VEX_OK;
        return VEXI_S3_DONE;
    }
    uint64_t total = t->answer.total_size;
    if (total == UINT64_MAX && t->answer.http_status == 200) {
        total = t->content_size;
    }
    if (total != UINT64_MAX && call->end > total) {
        return give(VEXI_S3_FINAL,
                    vexi_fail(err, VEX_CORRUPT, "%s: bytes %llu to %llu lie outside its %llu",
                              call->what, (unsigned long long)call->start,
                              (unsigned long long)call->end, (unsigned long long)total),
                    status);
    }
    if (t->is_wrong_range || t->position < call->end) {
        return give(VEXI_S3_AGAIN,
                    vexi_fail(err, VEXI_S3_UNAVAILABLE,
                              "store unavailable: %s: %s sent other bytes than were asked for, or "
                              "fewer",
                              call->what, address->base),
                    status);
    }
    *status = VEX_OK;
    return VEXI_S3_DONE;
}

vexi_s3_failure vexi_s3_judge(const vexi_s3_transfer *transfer, int curl_code,
                              const char *timeout_text, const vexi_s3_settings *settings,
                              const vexi_s3_address *address, int64_t now_seconds,
                              vex_status *status, vex_error *err) {
    const vexi_s3_transfer *t = transfer;
    int http = t->answer.http_status;
    if (t->no_memory) {
        return give(VEXI_S3_FINAL, vexi_no_memory(err, (size_t)t->received_size), status);
    }
    if (t->is_too_large) {
        return give(VEXI_S3_FINAL,
                    vexi_fail(err, VEX_LIMIT, "%s: the answer of %s is too large", t->call->what,
                              address->base),
                    status);
    }
    bool is_refusal = timeout_text == NULL && http >= 300 &&
                      (curl_code == CURLE_OK || t->answer.error.code[0] != '\0');
    if (is_refusal) {
        return judge_http(t, settings, address, now_seconds, status, err);
    }
    bool is_own_end = curl_code == CURLE_WRITE_ERROR && (t->is_complete || t->is_wrong_range);
    if (timeout_text == NULL && (curl_code == CURLE_OK || is_own_end)) {
        return judge_success(t, address, status, err);
    }
    return judge_curl(t, curl_code, timeout_text, settings, address, status, err);
}
