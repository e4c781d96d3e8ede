/* Addresses, encoding and small texts of requests.
 *
 * Encoding before signing. Path and query are percent-encoded here, in the one form that SigV4
 * signs, and then handed to libcurl as they are (CURLOPT_PATH_AS_IS): what is signed is what is
 * sent.
 *
 * start-after. Listings of some servers are not in byte order: SeaweedFS walks its folders, so that
 * there "a/x" comes before "a-b", and a start-after is meant in that order too. Sending `after`
 * itself could lose names. What is sent instead is a prefix s of `after` that ends in its first
 * segment behind the listing's prefix, holds neither '-' nor '.' there (the only characters of our
 * names that sort before '/'), and is followed in `after` by a character above '/'. Take a name e
 * behind `after` in byte order. Where they first differ is either within s: there both characters
 * sort the same way in both orders, since e's can be '/' only if s's were below it; or behind s:
 * then e continues s, and not by '/', so its segment is longer than s and behind it in both orders.
 * So e is behind s for either server. What comes too much is left out by us. For the numbered names
 * of a log, that is at most nine names. */
#include <curl/curl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "base/checksum.h"
#include "store/s3_internal.h"

static bool is_unreserved(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '~' || c == '-';
}

void vexi_s3_encode(vexi_buffer *out, const char *text, bool keep_slash) {
    static const char digits[] = "0123456789ABCDEF";
    for (; *text != '\0'; text++) {
        if (is_unreserved(*text) || (keep_slash && *text == '/')) {
            vexi_buffer_append(out, text, 1);
        } else {
            uint8_t byte = (uint8_t)*text;
            const char escaped[3] = {'%', digits[byte >> 4], digits[byte & 15]};
            vexi_buffer_append(out, escaped, 3);
        }
    }
}

void vexi_s3_query_add(vexi_buffer *query, const char *name, const char *value) {
    vexi_buffer_text(query, query->size == 0 ? "" : "&");
    vexi_s3_encode(query, name, false);
    vexi_buffer_text(query, "=");
    if (value != NULL) {
        vexi_s3_encode(query, value, false);
    }
}

void vexi_s3_base64(const uint8_t *data, size_t size, char *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        size_t left = size - i;
        uint32_t bits = (uint32_t)data[i] << 16 | (left > 1 ? (uint32_t)data[i + 1] << 8 : 0) |
                        (left > 2 ? data[i + 2] : 0u);
        *out++ = digits[bits >> 18];
        *out++ = digits[bits >> 12 & 63];
        *out++ = left > 1 ? digits[bits >> 6 & 63] : '=';
        *out++ = left > 2 ? digits[bits & 63] : '=';
    }
    *out = '\0';
}

void vexi_s3_crc_text(const vexi_span *parts, size_t count, char out[VEXI_S3_CRC_SIZE]) {
    uint32_t crc = 0;
    for (size_t i = 0; i < count; i++) {
        crc = vexi_crc32c(crc, parts[i].data, parts[i].size);
    }
    const uint8_t bytes[4] = {(uint8_t)(crc >> 24), (uint8_t)(crc >> 16), (uint8_t)(crc >> 8),
                              (uint8_t)crc};
    vexi_s3_base64(bytes, sizeof bytes, out);
}

bool vexi_s3_md5_text(vexi_span data, char out[VEXI_S3_MD5_SIZE]) {
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    out[0] = '\0';
    if (EVP_Digest(data.data, data.size, digest, &size, EVP_md5(), NULL) != 1 || size != 16) {
        return false;
    }
    vexi_s3_base64(digest, size, out);
    return true;
}

void vexi_s3_start_after(const char *prefix, const char *after, char *out, size_t out_size) {
    out[0] = '\0';
    size_t prefix_size = strlen(prefix);
    if (strncmp(after, prefix, prefix_size) != 0) {
        return;
    }
    const char *rest = after + prefix_size;
    size_t usable = strcspn(rest, "-./");
    /* A prefix need not end with a segment; then what it holds of one counts too. */
    const char *slash = strrchr(prefix, '/');
    const char *begun = slash == NULL ? prefix : slash + 1;
    if (strpbrk(begun, "-.") != NULL || usable == 0) {
        return;
    }
    size_t size = prefix_size + usable - 1;
    if (usable == 1 || size >= out_size) {
        return; /* the prefix alone says it */
    }
    memcpy(out, after, size);
    out[size] = '\0';
}

/* ---- Addresses ------------------------------------------------------------------------------- */

static bool is_loopback(const char *host) {
    return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
           strcmp(host, "[::1]") == 0;
}

static bool is_bucket_name(const char *bucket) {
    size_t size = strlen(bucket);
    if (size < 3 || size > 63) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        bool is_edge = i == 0 || i + 1 == size;
        bool is_plain =
            (bucket[i] >= 'a' && bucket[i] <= 'z') || (bucket[i] >= '0' && bucket[i] <= '9');
        if (!is_plain && (is_edge || (bucket[i] != '-' && bucket[i] != '.'))) {
            return false;
        }
    }
    return strstr(bucket, "..") == NULL;
}

vex_status vexi_s3_address_make(const vexi_s3_settings *settings, vexi_s3_address *out,
                                vex_error *err) {
    *out = (vexi_s3_address){0};
    if (!is_bucket_name(settings->bucket)) {
        return vexi_fail(err, VEX_INVALID,
                         "'%s' is no name of a bucket: it has 3 to 63 lower-case letters, digits, "
                         "'-' and '.'",
                         settings->bucket);
    }
    char wanted[640];
    if (settings->endpoint[0] != '\0') {
        snprintf(wanted, sizeof wanted, "%s", settings->endpoint);
    } else {
        snprintf(wanted, sizeof wanted, "https://s3.%s.amazonaws.com", settings->region);
    }
    vex_status status = VEX_OK;
    char *scheme = NULL, *host = NULL, *port = NULL, *path = NULL, *extra = NULL;
    CURLU *url = curl_url();
    if (url == NULL) {
        return vexi_no_memory(err, sizeof wanted);
    }
    bool is_good = curl_url_set(url, CURLUPART_URL, wanted, 0) == CURLUE_OK &&
                   curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                   curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
                   curl_url_get(url, CURLUPART_PATH, &path, 0) == CURLUE_OK &&
                   (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0) &&
                   strcmp(path, "/") == 0;
    static const CURLUPart unwanted[] = {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_QUERY,
                                         CURLUPART_FRAGMENT};
    for (size_t i = 0; is_good && i < sizeof unwanted / sizeof *unwanted; i++) {
        is_good = curl_url_get(url, unwanted[i], &extra, 0) != CURLUE_OK;
        curl_free(extra);
        extra = NULL;
    }
    if (!is_good) {
        /* Not shown: it may hold a password. */
        status = vexi_fail(err, VEX_INVALID,
                           "the endpoint is no address like http://host:8333 or https://host: "
                           "check --endpoint or AWS_ENDPOINT_URL");
        goto done;
    }
    out->is_https = strcmp(scheme, "https") == 0;
    /* No port where it is the scheme's own, as in the Host header. */
    if (curl_url_get(url, CURLUPART_PORT, &port, 0) != CURLUE_OK ||
        strcmp(port, out->is_https ? "443" : "80") == 0) {
        curl_free(port);
        port = NULL;
    }
    out->is_loopback = is_loopback(host);
    bool is_virtual = settings->virtual_host;
    int size =
        snprintf(out->host, sizeof out->host, "%s%s%s%s%s", is_virtual ? settings->bucket : "",
                 is_virtual ? "." : "", host, port == NULL ? "" : ":", port == NULL ? "" : port);
    if (size < 0 || (size_t)size >= sizeof out->host) {
        status = vexi_fail(err, VEX_INVALID, "the endpoint's host is too long");
        goto done;
    }
    snprintf(out->base, sizeof out->base, "%s://%s", scheme, out->host);
    if (!is_virtual) {
        snprintf(out->bucket_path, sizeof out->bucket_path, "/%s", settings->bucket);
    }

done:
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_free(path);
    curl_url_cleanup(url);
    return status;
}
