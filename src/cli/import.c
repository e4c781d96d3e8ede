/* vexlake import: files into a collection, with progress.
 *
 * The import is one call; a watcher thread reads its progress four times a second and prints it:
 * a bar that rewrites its line on a terminal, a line every few seconds elsewhere. The same thread
 * takes the signals, which are blocked everywhere else: SIGINT and SIGTERM ask the import to stop
 * (nothing is imported then), a second one ends the program on the spot, and SIGUSR1 is how the
 * main thread tells the watcher to end. So no handler and no global variable is needed. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "cli/commands.h"

enum { TICK_MS = 250, LINE_INTERVAL_MS = 5000, BAR_WIDTH = 16 };

typedef struct watcher {
    vex_progress progress; /* written by the import, read here by __atomic_load_n               */
    sigset_t signals;      /* immutable                                                         */
    pthread_t thread;
    bool terminal;       /* immutable                                                         */
    uint64_t start_ns;   /* immutable                                                         */
    uint64_t phase_ns;   /* when the phase began; the watcher's own, like the rest            */
    uint64_t phase_rows; /* rows done by then                                                 */
    uint64_t line_ns;    /* when the last line was printed                                    */
    uint32_t phase;
    bool asked_to_stop;
} watcher;

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* 1234567 as "1,234,567". */
static const char *group_digits(uint64_t number, char out[32]) {
    char digits[24];
    int count = snprintf(digits, sizeof digits, "%" PRIu64, number);
    size_t used = 0;
    for (int i = 0; i < count; i++) {
        if (i > 0 && (count - i) % 3 == 0) {
            out[used++] = ',';
        }
        out[used++] = digits[i];
    }
    out[used] = '\0';
    return out;
}

/* 75 s as "1:15". */
static const char *format_duration(double seconds, char out[32]) {
    uint64_t whole = seconds < 0 || seconds > 1e9 ? 0 : (uint64_t)(seconds + 0.5);
    if (whole < 3600) {
        (void)snprintf(out, 32, "%" PRIu64 ":%02" PRIu64, whole / 60, whole % 60);
    } else {
        (void)snprintf(out, 32, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, whole / 3600,
                       whole / 60 % 60, whole % 60);
    }
    return out;
}

static const char *phase_name(uint32_t phase) {
    return phase == 0 ? "reading" : phase == 1 ? "indexing" : "committing";
}

/* One line about where the import stands. `bar` is for a terminal. */
static void format_progress(const watcher *w, uint64_t now, bool bar, char *out, size_t size) {
    uint64_t done = __atomic_load_n(&w->progress.rows_done, __ATOMIC_RELAXED);
    uint64_t total = __atomic_load_n(&w->progress.rows_total, __ATOMIC_RELAXED);
    double seconds = (double)(now - w->phase_ns) / 1e9;
    double rate =
        done > w->phase_rows && seconds > 0 ? (double)(done - w->phase_rows) / seconds : 0;
    char done_text[32], total_text[32], rate_text[32], left_text[32];
    int used = snprintf(out, size, "%-10s ", phase_name(w->phase));
    if (total > 0 && bar) {
        int filled = (int)(done >= total ? BAR_WIDTH : done * BAR_WIDTH / total);
        used += snprintf(out + used, size - (size_t)used, "[%.*s%*s] %3d%%  ", filled,
                         "################", BAR_WIDTH - filled, "",
                         (int)(done >= total ? 100 : done * 100 / total));
    }
    used += snprintf(out + used, size - (size_t)used, "%s", group_digits(done, done_text));
    if (total > 0 && !bar) {
        used +=
            snprintf(out + used, size - (size_t)used, " of %s", group_digits(total, total_text));
    }
    used += snprintf(out + used, size - (size_t)used, " rows");
    if (rate > 0) {
        used += snprintf(out + used, size - (size_t)used, ", %s/s",
                         group_digits((uint64_t)rate, rate_text));
        if (total > done) {
            (void)snprintf(out + used, size - (size_t)used, ", %s left",
                           format_duration((double)(total - done) / rate, left_text));
        }
    }
}

static void show_progress(watcher *w) {
    uint64_t now = now_ns();
    uint32_t phase = __atomic_load_n(&w->progress.phase, __ATOMIC_RELAXED);
    if (phase != w->phase) {
        w->phase = phase;
        w->phase_ns = now;
        w->phase_rows = __atomic_load_n(&w->progress.rows_done, __ATOMIC_RELAXED);
    }
    char text[192];
    format_progress(w, now, w->terminal, text, sizeof text);
    if (w->terminal) {
        struct winsize window = {0};
        int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0
                          ? window.ws_col - 1
                          : 79;
        fprintf(stderr, "\r\033[K%.*s", columns, text);
        fflush(stderr);
    } else if (now - w->line_ns >= (uint64_t)LINE_INTERVAL_MS * 1000000u) {
        w->line_ns = now;
        fprintf(stderr, "vexlake import: %s\n", text);
    }
}

static void *watch(void *argument) {
    watcher *w = argument;
    const struct timespec tick = {.tv_nsec = TICK_MS * 1000000L};
    for (;;) {
        int number = sigtimedwait(&w->signals, NULL, &tick);
        if (number == SIGUSR1) {
            break;
        }
        if (number == SIGINT || number == SIGTERM) {
            if (w->asked_to_stop) {
                _exit(128 + number);
            }
            w->asked_to_stop = true;
            __atomic_store_n(&w->progress.cancel, 1, __ATOMIC_RELAXED);
            fprintf(stderr, "%svexlake import: stopping; nothing will be imported\n",
                    w->terminal ? "\r\033[K" : "");
        } else if (number < 0 && errno == EAGAIN && !w->asked_to_stop) {
            show_progress(w);
        }
    }
    if (w->terminal) {
        fputs("\r\033[K", stderr);
    }
    return NULL;
}

/* Block the signals in this thread, and so in all that it starts, and start the watcher. */
static vex_status watcher_start(watcher *w, vex_error *err) {
    sigemptyset(&w->signals);
    sigaddset(&w->signals, SIGINT);
    sigaddset(&w->signals, SIGTERM);
    sigaddset(&w->signals, SIGUSR1);
    int code = pthread_sigmask(SIG_BLOCK, &w->signals, NULL);
    if (code == 0) {
        w->terminal = isatty(STDERR_FILENO);
        w->start_ns = w->phase_ns = w->line_ns = now_ns();
        code = pthread_create(&w->thread, NULL, watch, w);
    }
    return code == 0 ? VEX_OK
                     : vexi_fail_code(err, VEX_INTERNAL, code, "cannot start a thread: %s",
                                      strerror(code));
}

static void watcher_stop(watcher *w) {
    (void)pthread_kill(w->thread, SIGUSR1);
    (void)pthread_join(w->thread, NULL);
}

static vex_string optional_text(const vexi_cli_arguments *arguments, const char *name) {
    const char *text = vexi_cli_value(arguments, name);
    return text != NULL ? vexi_string_of(text) : (vex_string){0};
}

static int run_import(const vexi_cli_command *command, int argc, char **argv) {
    vexi_cli_arguments arguments;
    int exit_status;
    if (!vexi_cli_begin(command, argc, argv, &arguments, &exit_status)) {
        return exit_status;
    }
    watcher w = {0};
    vex_import_options options = {
        .size = sizeof options,
        .id_column = optional_text(&arguments, "id"),
        .vector_column = optional_text(&arguments, "vector"),
        .ids_path = optional_text(&arguments, "ids"),
        .progress = &w.progress,
    };
    vex_lake *lake = NULL;
    vex_error err;
    uint32_t metric, index, segment_mib;
    uint64_t row_count = 0;
    vex_status status;
    VEX_TRY_GOTO(
        status, done,
        vexi_cli_choice(&arguments, "metric", VEXI_CLI_METRICS, VEX_METRIC_L2, &metric, &err));
    VEX_TRY_GOTO(
        status, done,
        vexi_cli_choice(&arguments, "index", VEXI_CLI_INDEXES, VEX_INDEX_AUTO, &index, &err));
    VEX_TRY_GOTO(status, done, vexi_cli_recall(&arguments, &options.recall, &err));
    VEX_TRY_GOTO(status, done, vexi_cli_bits(&arguments, &options.bits, &err));
    VEX_TRY_GOTO(status, done,
                 vexi_cli_number(&arguments, "segment-size", 1, 16384, 0, &segment_mib, &err));
    options.segment_size_bytes = (uint64_t)segment_mib << 20;
    options.metric = (vex_metric)metric;
    options.index = (vex_index_kind)index;
    VEX_TRY_GOTO(status, done, watcher_start(&w, &err));
    status = vexi_cli_open(&arguments, VEXI_CLI_MAKE, &lake, &err);
    const char *into = vexi_cli_value(&arguments, "into");
    if (status == VEX_OK) {
        status = vex_import(lake, vexi_string_of(into), (const char *const *)arguments.operands,
                            arguments.operand_count, &options, &row_count, &err);
    }
    watcher_stop(&w);
    if (status == VEX_OK) {
        char rows[32], rate[32];
        double seconds = (double)(now_ns() - w.start_ns) / 1e9;
        printf("imported %s rows into %s in %.2f s (%s rows/s)\n", group_digits(row_count, rows),
               into, seconds, group_digits((uint64_t)((double)row_count / seconds), rate));
    }
done:
    return vexi_cli_end(command, lake, status, &err);
}

static const vexi_cli_option options[] = {
    {"lake", 0, true, "URI", "the lake: a folder or file://...; made if it is missing"},
    {"into", 0, true, "NAME", "the collection; made if it is missing"},
    {"id", 0, false, "COL", "the column with the ids; default: id"},
    {"vector", 0, false, "COL",
     "the column with the vectors; default: vector, else the only column that has some"},
    {"ids", 0, false, "FILE", "npy, fvecs, bvecs: a text file with an id per line"},
    {"metric", 0, false, VEXI_CLI_METRICS, "metric of a collection that is made; default: l2"},
    {"index", 0, false, VEXI_CLI_INDEXES, "index of a collection that is made; default: auto"},
    {"recall", 0, false, "R", "recall of a collection that is made; default: 0.95"},
    {"bits", 0, false, "1|4|8", "bits of the codes of a collection that is made; default: 4"},
    {"segment-size", 0, false, "MIB",
     "vectors of one segment; default: 256. Larger ones are searched faster; importing takes "
     "several times as much memory"},
    {0},
};

const vexi_cli_command vexi_cli_import = {
    .name = "import",
    .operands = "FILE...",
    .summary = "Store the rows of files in a collection, all of them or none.",
    .details =
        "Files are Parquet, JSON lines (.jsonl, .ndjson), .npy, .fvecs or .bvecs, told apart by\n"
        "their name and first bytes. Columns besides id and vector come along with their types. "
        "An\n"
        "integer id becomes its decimal text and stays as a typed column; files without ids count\n"
        "their rows from 0. A row replaces an older one of the same id. Interrupted (Ctrl-C), it\n"
        "imports nothing. No server may have the lake open meanwhile.",
    .operand_min = 1,
    .operand_max = UINT32_MAX,
    .options = options,
    .run = run_import,
};
