/* Numbers as the shortest text that reads back, and text as the nearest float.
 *
 * A float32 needs 1 to 9 significant digits. Every decimal of up to 6 digits survives the way
 * through a float32, so if one of at most 6 digits reads back to the value, it is the value
 * rounded to 6 digits, without the trailing zeros; else 7, 8 and 9 are tried in turn. (The same
 * holds for doubles with 15, 16 and 17.) It fails for subnormal numbers, which have fewer digits
 * than that, so they are tried from one digit on.
 *
 * At a power of two the numbers below are twice as dense as those above, so a decimal a little
 * further off on the upper side may read back where the nearest one does not: the next larger
 * decimal is tried as well.
 *
 * Speed. Between 1e-13 and 1e22 a candidate is an integer below 2^53 times or divided by a power
 * of ten that a double holds exactly, so one multiplication or division gives the correctly
 * rounded double of its value, and rounding that to float is right unless it lies exactly in the
 * middle of two floats, where the slow way (snprintf and strtof) decides. That is about 40 ns a
 * number instead of 2 us. Doubles between 1e-10 and 1e15, as distances are, take whole numbers of
 * 128 bits. The program never calls setlocale, so the decimal point is a point. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "resp/resp.h"

#define POWER_MAX 22

__extension__ typedef unsigned __int128 wide_number;

static const double powers_of_ten[POWER_MAX + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* The float nearest to digits x 10^exponent; false where the fast way cannot tell. */
static bool float_of_decimal(uint64_t digits, int exponent, float *out) {
    if (digits > (UINT64_C(1) << 53) || exponent > POWER_MAX || exponent < -POWER_MAX) {
        return false;
    }
    double value = exponent >= 0 ? (double)digits * powers_of_ten[exponent]
                                 : (double)digits / powers_of_ten[-exponent];
    if (value != 0 && (value < 1e-36 || value > 1e38)) {
        return false; /* near the ends of float's range the middle is elsewhere */
    }
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x1fffffffu) == 0x10000000u) {
        return false;
    }
    *out = (float)value;
    return true;
}

static size_t copy_text(char *out, const char *text) {
    size_t size = strlen(text);
    memcpy(out, text, size);
    return size;
}

static size_t write_digits(uint64_t value, char *out) {
    char reversed[20];
    size_t count = 0;
    do {
        reversed[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    for (size_t i = 0; i < count; i++) {
        out[i] = reversed[count - 1 - i];
    }
    return count;
}

size_t vexi_format_i64(int64_t value, char out[VEXI_NUMBER_SIZE_MAX]) {
    if (value >= 0) {
        return write_digits((uint64_t)value, out);
    }
    out[0] = '-';
    return 1 + write_digits(0 - (uint64_t)value, out + 1);
}

/* Write digits x 10^exponent; digits > 0. */
static size_t write_decimal(bool negative, uint64_t digits, int exponent, char *out) {
    while (digits % 10 == 0) {
        digits /= 10;
        exponent++;
    }
    char text[20];
    size_t count = write_digits(digits, text);
    int point = (int)count + exponent; /* digits before the point */
    size_t size = 0;
    if (negative) {
        out[size++] = '-';
    }
    if (point > 17 || point < -4) {
        out[size++] = text[0];
        if (count > 1) {
            out[size++] = '.';
            memcpy(out + size, text + 1, count - 1);
            size += count - 1;
        }
        out[size++] = 'e';
        return size + vexi_format_i64(point - 1, out + size);
    }
    if (point <= 0) {
        out[size++] = '0';
        out[size++] = '.';
        memset(out + size, '0', (size_t)-point);
        size += (size_t)-point;
        memcpy(out + size, text, count);
        return size + count;
    }
    if ((size_t)point >= count) {
        memcpy(out + size, text, count);
        memset(out + size + count, '0', (size_t)point - count);
        return size + (size_t)point;
    }
    memcpy(out + size, text, (size_t)point);
    size += (size_t)point;
    out[size++] = '.';
    memcpy(out + size, text + point, count - (size_t)point);
    return size + count - (size_t)point;
}

/* What printf made with %.*e: digits and exponent. */
static void split_scientific(const char *text, uint64_t *digits, int *exponent) {
    uint64_t number = 0;
    int fraction_count = 0;
    bool in_fraction = false;
    const char *p = text;
    for (; *p != 'e'; p++) {
        if (*p == '.') {
            in_fraction = true;
        } else {
            number = number * 10 + (uint64_t)(*p - '0');
            fraction_count += in_fraction ? 1 : 0;
        }
    }
    *digits = number;
    *exponent = (int)strtol(p + 1, NULL, 10) - fraction_count;
}

/* Whether digits x 10^exponent reads back to value (as float where is_float). */
static bool reads_back(uint64_t digits, int exponent, double value, bool is_float) {
    char text[48];
    snprintf(text, sizeof text, "%llue%d", (unsigned long long)digits, exponent);
    return is_float ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value;
}

/* The slow way, for any finite value above 0. */
static size_t format_slowly(double value, bool is_float, bool negative, char *out) {
    bool subnormal = is_float ? value < (double)FLT_MIN : value < DBL_MIN;
    int digits_min = subnormal ? 1 : is_float ? 6 : 15;
    int digits_max = is_float ? 9 : 17;
    uint64_t digits = 0;
    int exponent = 0;
    for (int count = digits_min; count <= digits_max; count++) {
        char text[64];
        snprintf(text, sizeof text, "%.*e", count - 1, value);
        split_scientific(text, &digits, &exponent);
        if (reads_back(digits, exponent, value, is_float)) {
            break;
        }
        if (reads_back(digits + 1, exponent, value, is_float)) {
            digits++;
            break;
        }
    }
    return write_decimal(negative, digits, exponent, out);
}

/* Finite, 0, whole or special: what both widths share. 0 if it is none of them. */
static size_t format_simply(double value, char *out) {
    if (value != value) {
        return copy_text(out, "nan");
    }
    if (value > DBL_MAX || value < -DBL_MAX) {
        return copy_text(out, value > 0 ? "inf" : "-inf");
    }
    if (value == 0) {
        return copy_text(out, signbit(value) ? "-0" : "0");
    }
    if (value >= -16777216.0 && value <= 16777216.0 && value == (double)(int32_t)value) {
        return vexi_format_i64((int32_t)value, out);
    }
    return 0;
}

/* What the slow way finds, in 128-bit integers; false where they are too small for that.
 *
 * With value = m x 2^e and a candidate of `digits` x 10^-s, both times 10^s x 2^t, where t =
 * -(e + s), are whole: M = m x 5^s and digits x 2^t. The candidate reads back if it is at most
 * half a unit of the last place away, 5^s / 2 in that measure (below a power of two a quarter), and
 * a tie reads back to an even m. */
static bool format_exactly(double value, bool negative, char *out, size_t *size) {
    static const int count_min = 15, count_max = 17, scale_max = 27; /* 5^27 < 2^63 */
    if (!(value >= 1e-10 && value < 1e15)) {
        return false;
    }
    int e;
    uint64_t m = (uint64_t)ldexp(frexp(value, &e), 53); /* normal: 53 bits */
    e -= 53;
    int decimal = (int)floor((e + 52) * 0.30102999566398120);
    if (value >=
        (decimal + 1 >= 0 ? powers_of_ten[decimal + 1] : 1 / powers_of_ten[-decimal - 1])) {
        decimal++; /* powers below 1 are rounded: one digit more or less does no harm */
    }
    for (int count = count_min; count <= count_max; count++) {
        int s = count - 1 - decimal;
        int t = -(e + s);
        if (s < 0 || s > scale_max || t < 1 || t > 64) {
            return false;
        }
        uint64_t five = 1;
        for (int i = 0; i < s; i++) {
            five *= 5;
        }
        wide_number whole = (wide_number)m * five;
        wide_number half = (wide_number)1 << (t - 1);
        uint64_t digits = (uint64_t)(whole >> t);
        wide_number rest = whole - ((wide_number)digits << t);
        digits += rest > half || (rest == half && digits % 2 != 0) ? 1 : 0;
        for (int step = 0; step < 2; step++, digits++) {
            wide_number candidate = (wide_number)digits << t;
            bool above = candidate >= whole;
            wide_number away = 2 * (above ? candidate - whole : whole - candidate);
            bool narrow = !above && m == UINT64_C(1) << 52; /* below a power of two */
            away *= narrow ? 2 : 1;
            if (away < five || (away == five && m % 2 == 0)) {
                *size = write_decimal(negative, digits, -s, out);
                return true;
            }
        }
    }
    return false;
}

size_t vexi_format_double(double value, char out[VEXI_NUMBER_SIZE_MAX]) {
    size_t size = format_simply(value, out);
    if (size == 0 && !format_exactly(fabs(value), value < 0, out, &size)) {
        size = format_slowly(fabs(value), false, value < 0, out);
    }
    return size;
}

size_t vexi_format_float(float value, char out[VEXI_NUMBER_SIZE_MAX]) {
    size_t size = format_simply((double)value, out);
    if (size != 0) {
        return size;
    }
    bool negative = value < 0;
    float target = fabsf(value);
    double wide = (double)target;
    if (wide < 1e-12 || wide >= 1e21) {
        return format_slowly(wide, true, negative, out);
    }
    /* The decimal exponent: log10(2) x the binary one, at most one too small. */
    int binary;
    (void)frexp(wide, &binary);
    int decimal = (int)floor((binary - 1) * 0.30102999566398120);
    double upper = decimal + 1 >= 0 ? powers_of_ten[decimal + 1] : 1 / powers_of_ten[-decimal - 1];
    if (wide >= upper) {
        decimal++;
    }
    bool power_of_two = ldexp(1.0, binary - 1) == wide;
    for (int count = 6; count <= 9; count++) {
        int scale = count - 1 - decimal;
        if (scale > POWER_MAX || scale < -POWER_MAX) {
            break;
        }
        double scaled = scale >= 0 ? wide * powers_of_ten[scale] : wide / powers_of_ten[-scale];
        uint64_t digits = (uint64_t)(scaled + 0.5);
        for (int step = 0; step <= (power_of_two ? 1 : 0); step++) {
            float back;
            if (!float_of_decimal(digits + (uint64_t)step, -scale, &back)) {
                return format_slowly(wide, true, negative, out);
            }
            if (back == target) {
                return write_decimal(negative, digits + (uint64_t)step, -scale, out);
            }
        }
    }
    return format_slowly(wide, true, negative, out);
}

size_t vexi_parse_float(const char *text, size_t size, float *out) {
    *out = 0;
    size_t i = 0;
    bool negative = false;
    if (i < size && (text[i] == '-' || text[i] == '+')) {
        negative = text[i++] == '-';
    }
    uint64_t digits = 0;
    int64_t exponent = 0;
    bool any = false;
    bool exact = true; /* digits holds every digit */
    bool in_fraction = false;
    for (; i < size; i++) {
        if (text[i] == '.' && !in_fraction) {
            in_fraction = true;
            continue;
        }
        if (text[i] < '0' || text[i] > '9') {
            break;
        }
        any = true;
        if (digits < 100000000000000000u) {
            digits = digits * 10 + (uint64_t)(text[i] - '0');
            exponent -= in_fraction ? 1 : 0;
        } else {
            exact = exact && text[i] == '0';
            exponent += in_fraction ? 0 : 1;
        }
    }
    if (!any || i == size) {
        return 0;
    }
    if (text[i] == 'e' || text[i] == 'E') {
        size_t j = i + 1;
        bool exponent_negative = false;
        if (j < size && (text[j] == '-' || text[j] == '+')) {
            exponent_negative = text[j++] == '-';
        }
        int64_t written = 0;
        size_t start = j;
        for (; j < size && text[j] >= '0' && text[j] <= '9'; j++) {
            if (written < 1000000000) {
                written = written * 10 + (text[j] - '0');
            }
        }
        if (j == size) {
            return 0;
        }
        if (j > start) {
            exponent += exponent_negative ? -written : written;
            i = j;
        }
    }
    float value = 0;
    if (digits == 0) {
        value = 0;
    } else if (!exact || exponent < -POWER_MAX || exponent > POWER_MAX ||
               !float_of_decimal(digits, (int)exponent, &value)) {
        /* Safe without a NUL: it stops at the byte behind the number. The exponent may lie outside
         * of the fast way's range, or the digits be too many. */
        value = fabsf(strtof(text, NULL));
    }
    *out = negative ? -value : value;
    return i;
}

bool vexi_parse_i64(vex_string text, int64_t *out) {
    *out = 0;
    size_t i = 0;
    bool negative = text.size > 1 && text.data[0] == '-';
    i += negative ? 1 : 0;
    if (text.size == i || text.size - i > 19 || (text.data[i] == '0' && text.size > 1)) {
        return false;
    }
    uint64_t value = 0;
    for (; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return false;
        }
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    if (value > (uint64_t)INT64_MAX + (negative ? 1 : 0)) {
        return false;
    }
    *out = (int64_t)(negative ? 0 - value : value);
    return true;
}
