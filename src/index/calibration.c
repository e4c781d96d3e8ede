/* The table of a calibration: reading an effort out of it.
 *
 * A table comes from a file, so that any content must be answered. An effort is read as the
 * most of lower recalls, and as the least of larger k, of which the nearest are the easier ones: so
 * it never falls as more is asked for, whatever the sample's noise (which is largest at k = 1) or a
 * damaged file says. Between columns the effort is interpolated linearly in
 * log k and in -log (1 - recall): true efforts are convex in both, so the line lies above them. */
#include "index/calibration.h"

#include <math.h>

const float vexi_calibration_recalls[VEXI_CALIBRATION_RECALLS] = {0.8f,  0.9f,  0.95f,  0.97f,
                                                                  0.98f, 0.99f, 0.995f, 0.999f};
const uint32_t vexi_calibration_ks[VEXI_CALIBRATION_KS] = {1, 10, 100, 1000};

/* The effort at a column, 0 where the table cannot tell. */
static double entry(const vexi_calibration *table, uint32_t k, uint32_t recall) {
    uint32_t least = UINT32_MAX;
    if (table->effort[k][recall] == 0) {
        return 0;
    }
    for (uint32_t i = k; i < VEXI_CALIBRATION_KS; i++) {
        uint32_t most = 0;
        for (uint32_t j = 0; j <= recall; j++) {
            most = table->effort[i][j] > most ? table->effort[i][j] : most;
        }
        least = table->effort[i][recall] != 0 && most < least ? most : least;
    }
    return least;
}

static double between(double low, double high, double share) {
    return low == 0 || high == 0 ? 0 : low + (high - low) * share;
}

/* The effort for one column of recall, 0: cannot tell. */
static double at_recall(const vexi_calibration *table, uint32_t recall, uint32_t k) {
    uint32_t last = VEXI_CALIBRATION_KS - 1;
    if (k >= vexi_calibration_ks[last]) {
        /* k rows lie in no more lists than k / 1000 times those of 1,000 rows, about. */
        return entry(table, last, recall) * ((double)k / vexi_calibration_ks[last]);
    }
    uint32_t low = 0;
    while (k >= vexi_calibration_ks[low + 1]) {
        low++;
    }
    if (k == vexi_calibration_ks[low]) {
        return entry(table, low, recall);
    }
    double share = log((double)k / vexi_calibration_ks[low]) /
                   log((double)vexi_calibration_ks[low + 1] / vexi_calibration_ks[low]);
    return between(entry(table, low, recall), entry(table, low + 1, recall), share);
}

uint32_t vexi_calibration_find(const vexi_calibration *table, float recall, uint32_t k,
                               uint32_t most) {
    uint32_t last = VEXI_CALIBRATION_RECALLS - 1;
    double effort;
    k = k < 1 ? 1 : k;
    if (!(recall < 1.0f)) {
        effort = 0; /* all */
    } else if (recall <= vexi_calibration_recalls[0]) {
        effort = at_recall(table, 0, k);
    } else {
        uint32_t low = 0;
        while (low + 2 <= last && recall >= vexi_calibration_recalls[low + 1]) {
            low++;
        }
        /* Beyond the last column the line goes on, steeper by the recall's logarithm. */
        double missed = 1.0 - (double)recall,
               missed_low = 1.0 - (double)vexi_calibration_recalls[low];
        double missed_high = 1.0 - (double)vexi_calibration_recalls[low + 1];
        double share = log(missed_low / missed) / log(missed_low / missed_high);
        double a = at_recall(table, low, k), b = at_recall(table, low + 1, k);
        if (share <= 0) {
            effort = a; /* rather than a question to a column that is not needed */
        } else if (share <= 1) {
            effort = between(a, b, share);
        } else {
            effort = a == 0 || b == 0 ? 0 : b * pow(missed_high / missed, 0.5);
        }
    }
    if (effort == 0 || effort >= most) {
        return most;
    }
    return effort <= 1 ? 1 : (uint32_t)ceil(effort);
}
