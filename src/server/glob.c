#include "server/commands.h"

static unsigned char fold(char c, bool ignore_case) {
    unsigned char u = (unsigned char)c;
    return ignore_case && u >= 'A' && u <= 'Z' ? (unsigned char)(u - 'A' + 'a') : u;
}

/* Match one character against the class that begins behind pattern[*p] == '['; *p moves to its
 * closing bracket, or to the end where there is none. */
static bool match_class(vex_string pattern, size_t *p, unsigned char c, bool ignore_case) {
    size_t i = *p + 1;
    bool negated = i < pattern.size && pattern.data[i] == '^';
    i += negated ? 1 : 0;
    bool found = false;
    while (i < pattern.size && pattern.data[i] != ']') {
        if (pattern.data[i] == '\\' && i + 1 < pattern.size) {
            i++;
            found = found || fold(pattern.data[i], ignore_case) == c;
        } else if (i + 2 < pattern.size && pattern.data[i + 1] == '-') {
            unsigned char low = fold(pattern.data[i], ignore_case);
            unsigned char high = fold(pattern.data[i + 2], ignore_case);
            if (low > high) {
                unsigned char swap = low;
                low = high;
                high = swap;
            }
            found = found || (c >= low && c <= high);
            i += 2;
        } else {
            found = found || fold(pattern.data[i], ignore_case) == c;
        }
        i++;
    }
    *p = i;
    return found != negated;
}

/* Greedy matching with a single point to return to: the last star takes one character more each
 * time the rest fails, so the time is at most pattern x text. */
bool vexi_glob_match(vex_string pattern, vex_string text, bool ignore_case) {
    size_t p = 0;
    size_t t = 0;
    size_t star = SIZE_MAX;
    size_t star_text = 0;
    while (t < text.size) {
        bool matched = false;
        size_t next = p;
        if (p < pattern.size) {
            char c = pattern.data[p];
            unsigned char here = fold(text.data[t], ignore_case);
            if (c == '*') {
                star = p++;
                star_text = t;
                continue;
            }
            if (c == '?') {
                matched = true;
            } else if (c == '[') {
                matched = match_class(pattern, &next, here, ignore_case);
            } else {
                if (c == '\\' && p + 1 < pattern.size) {
                    next = p + 1;
                }
                matched = fold(pattern.data[next], ignore_case) == here;
            }
        }
        if (matched) {
            p = next + 1;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++star_text;
        } else {
            return false;
        }
    }
    while (p < pattern.size && pattern.data[p] == '*') {
        p++;
    }
    return p >= pattern.size;
}
