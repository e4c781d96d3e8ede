/* AWS Signature Version 4
 * (https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html).
 *
 * A request is written in a canonical form, its SHA-256 stands in a text with date and scope, and
 * that text is authenticated by a key that is derived from the secret, the day, the region and the
 * service. The canonical form is where clients go wrong: path and query must be encoded before
 * signing exactly as they are sent (libcurl's own signing signs what it was given, which is why it
 * fails here), and headers are sorted by name with their values trimmed. The payload is not
 * signed (UNSIGNED-PAYLOAD): every server tried accepts that over http and https, one of them does
 * not look at a signed payload's hash anyway, and x-amz-checksum-crc32c is checked by all.
 *
 * The derived key is kept for its day: signing then costs two SHA-256 of some hundred bytes. */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <string.h>

#include "store/s3_internal.h"

static void hex(const uint8_t *data, size_t size, char *out) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size; i++) {
        out[2 * i] = digits[data[i] >> 4];
        out[2 * i + 1] = digits[data[i] & 15];
    }
    out[2 * size] = '\0';
}

void vexi_s3_sha256_hex(const void *data, size_t size, char out[65]) {
    uint8_t digest[SHA256_DIGEST_LENGTH];
    (void)SHA256(data, size, digest);
    hex(digest, sizeof digest, out);
}

static void hmac(const uint8_t *key, size_t key_size, const void *data, size_t size,
                 uint8_t out[32]) {
    unsigned int out_size = 32;
    VEX_ASSERT(HMAC(EVP_sha256(), key, (int)key_size, data, size, out, &out_size) != NULL);
    VEX_ASSERT(out_size == 32);
}

void vexi_s3_signing_key(const char *secret_key, const char *day, const char *region,
                         const char *service, uint8_t out[32]) {
    uint8_t start[4 + 256];
    size_t secret_size = strlen(secret_key);
    VEX_ASSERT(secret_size <= 256);
    memcpy(start, "AWS4", 4);
    memcpy(start + 4, secret_key, secret_size);
    uint8_t a[32], b[32];
    hmac(start, 4 + secret_size, day, strlen(day), a);
    hmac(a, sizeof a, region, strlen(region), b);
    hmac(b, sizeof b, service, strlen(service), a);
    hmac(a, sizeof a, "aws4_request", 12, out);
    OPENSSL_cleanse(start, sizeof start);
    OPENSSL_cleanse(a, sizeof a);
    OPENSSL_cleanse(b, sizeof b);
}

void vexi_s3_date(int64_t seconds, char out[VEXI_S3_DATE_SIZE]) {
    /* Years 0001 to 9999, by the civil calendar of Hinnant's days_from_civil, inverted. */
    int64_t days = seconds / 86400;
    int64_t rest = seconds % 86400;
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t day_of_era = z - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month_index = (5 * day_of_year + 2) / 153;
    int64_t day = day_of_year - (153 * month_index + 2) / 5 + 1;
    int64_t month = month_index < 10 ? month_index + 3 : month_index - 9;
    int64_t year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);
    VEX_ASSERT(year >= 0 && year <= 9999);
    unsigned long long number = (unsigned long long)(year * 10000 + month * 100 + day);
    unsigned long long clock =
        (unsigned long long)(rest / 3600 * 10000 + rest / 60 % 60 * 100 + rest % 60);
    for (int i = 7; i >= 0; i--, number /= 10) {
        out[i] = (char)('0' + number % 10);
    }
    out[8] = 'T';
    for (int i = 14; i >= 9; i--, clock /= 10) {
        out[i] = (char)('0' + clock % 10);
    }
    out[15] = 'Z';
    out[16] = '\0';
}

/* The value without spaces around it and with one where several follow each other. */
static void append_trimmed(vexi_buffer *out, const char *value) {
    while (*value == ' ' || *value == '\t') {
        value++;
    }
    size_t size = strlen(value);
    while (size > 0 && (value[size - 1] == ' ' || value[size - 1] == '\t')) {
        size--;
    }
    for (size_t i = 0; i < size; i++) {
        bool is_space = value[i] == ' ';
        if (!is_space || value[i - 1] != ' ') {
            vexi_buffer_append(out, value + i, 1);
        }
    }
}

static void append_signed_names(vexi_buffer *out, const vexi_s3_header *sorted, size_t count) {
    for (size_t i = 0; i < count; i++) {
        vexi_buffer_text(out, i == 0 ? "" : ";");
        vexi_buffer_text(out, sorted[i].name);
    }
}

void vexi_s3_sign(vexi_s3_signer *signer, const char *date, const char *method, const char *path,
                  const char *query, const vexi_s3_header *headers, size_t count,
                  const char *payload_hash, vexi_buffer *out) {
    VEX_ASSERT(count <= VEXI_S3_HEADERS_MAX);
    VEX_ASSERT(strlen(date) + 1 == VEXI_S3_DATE_SIZE);
    vexi_s3_header sorted[VEXI_S3_HEADERS_MAX];
    for (size_t i = 0; i < count; i++) {
        size_t at = i;
        for (; at > 0 && strcmp(sorted[at - 1].name, headers[i].name) > 0; at--) {
            sorted[at] = sorted[at - 1];
        }
        sorted[at] = headers[i];
    }
    char day[9];
    memcpy(day, date, 8);
    day[8] = '\0';
    if (memcmp(day, signer->day, sizeof day) != 0) {
        vexi_s3_signing_key(signer->secret_key, day, signer->region, signer->service, signer->key);
        memcpy(signer->day, day, sizeof day);
    }

    vexi_buffer text;
    vexi_buffer_init(&text, out->env, 65536);
    vexi_buffer_text(&text, method);
    vexi_buffer_text(&text, "\n");
    vexi_buffer_text(&text, path);
    vexi_buffer_text(&text, "\n");
    vexi_buffer_text(&text, query);
    vexi_buffer_text(&text, "\n");
    for (size_t i = 0; i < count; i++) {
        vexi_buffer_text(&text, sorted[i].name);
        vexi_buffer_text(&text, ":");
        append_trimmed(&text, sorted[i].value);
        vexi_buffer_text(&text, "\n");
    }
    vexi_buffer_text(&text, "\n");
    append_signed_names(&text, sorted, count);
    vexi_buffer_text(&text, "\n");
    vexi_buffer_text(&text, payload_hash);
    char request_hash[65], signature[65];
    vexi_s3_sha256_hex(text.data, text.size, request_hash);

    bool failed = text.failed;
    vexi_buffer_clear(&text);
    vexi_buffer_format(&text, "AWS4-HMAC-SHA256\n%s\n%s/%s/%s/aws4_request\n%s", date, day,
                       signer->region, signer->service, request_hash);
    uint8_t digest[32];
    hmac(signer->key, sizeof signer->key, text.data, text.size, digest);
    hex(digest, sizeof digest, signature);
    out->failed = out->failed || failed || text.failed;
    vexi_buffer_deinit(&text);

    vexi_buffer_format(out, "AWS4-HMAC-SHA256 Credential=%s/%s/%s/%s/aws4_request,SignedHeaders=",
                       signer->access_key, day, signer->region, signer->service);
    append_signed_names(out, sorted, count);
    vexi_buffer_format(out, ",Signature=%s", signature);
}
