/* Every command: one table for lookup, COMMAND, and docs/commands.md. */
#include <string.h>

#include "server/commands.h"

static const vexi_command table[] = {
    {"vsearch", -3, VEXI_KIND_SEARCH, NULL, false, "vector",
     "vector|ID id k [RECALL r] [NPROBE n] [EF n] [EXACT] [PARTIAL] [CONSISTENT] "
     "[RETURN n column ...] [WITHVECTORS] [RAW] [PROFILE] [IN collection]",
     "Find the k nearest rows of a vector, or of a stored row (ID), itself included.",
     "An array of rows, nearest first; a row is `[id, distance]`, or `[id, distance, map]` with "
     "RETURN or WITHVECTORS. Fewer than k rows if the collection has fewer.",
     "Distance is squared L2, 1 - cosine, or -(inner product), by the collection's metric. k is 1 "
     "to 10,000.\n\n"
     "- RECALL r: the share of the true neighbours to aim at, such as 0.99; without it the "
     "collection's. Each segment knows from its calibration how far to search for it. 1 is EXACT, "
     "which compares every row.\n"
     "- NPROBE n: posting lists to probe in each indexed segment, instead of RECALL; graphs are "
     "not used then. EF n: beam of the search in segments with a graph, instead of RECALL.\n"
     "- PARTIAL: leave out segments that are damaged instead of failing.\n"
     "- CONSISTENT: on s3://, look for what other nodes have written before answering; without it "
     "their rows are seen within the poll interval.\n"
     "- RETURN n column ...: columns to fetch for each row: `vector`, `attributes`, `payload` or a "
     "typed column. WITHVECTORS adds `vector`. RAW gives vectors as float32 blobs.\n"
     "- PROFILE: reply with an array of two: the rows, and a map of what the search did: segments "
     "looked at (and of them by lists, by graph, left out), lists, graph hops, codes and rows "
     "compared, Parquet pages decoded and their bytes. For a lake that is not local: `steps`, "
     "requests that had to wait for one another's answers (what is sent together is one), "
     "`requests` and the `request-bytes` that they asked for, and `cache-hits`, reads that the "
     "caches answered instead; all of them are 0 where nothing had to be asked. Then microseconds: "
     "waiting for those steps (`read-us`; of several threads the longest), finding the rows "
     "(`scan-us`, reading included), their columns (`columns-us`), and in all (`total-us`)."},
    {"vset", -3, VEXI_KIND_PUT, NULL, false, "vector",
     "id vector [ATTRIBUTES json] [PAYLOAD blob] [IN collection]",
     "Store a row, durably. It replaces a row of that id as a whole.", "`OK`",
     "What is not given becomes null. `attributes` keeps the JSON object byte for byte; declared "
     "columns take the values of its keys of their names, and a value of another type is an error "
     "that changes nothing. The collection `default` is made by the first VSET, with that vector's "
     "dimension and the metric l2."},
    {"vget", -2, VEXI_KIND_GET, NULL, false, "vector",
     "id [id ...] [RETURN n column ...] [RAW] [IN collection]", "Fetch rows by id.",
     "The row as a map of column and value, null if there is none of that id; for several ids an "
     "array of those.",
     "Without RETURN all columns: `vector`, `attributes`, `payload`, then the typed ones. A column "
     "without a value is null. The first argument is always an id."},
    {"vdel", -2, VEXI_KIND_DELETE, NULL, false, "vector", "id [id ...] [IN collection]",
     "Delete rows by id, durably.", "How many were there, an integer.", NULL},
    {"vcreate", -4, VEXI_KIND_WRITE, vexi_command_vcreate, false, "collection",
     "name DIM d [METRIC l2|cosine|ip] [INDEX auto|ivf|hnsw|flat] [RECALL r] [BITS 1|4|8] "
     "[COLUMNS name type ...]",
     "Create a collection.", "`OK`",
     "The metric is l2 by default.\n\n"
     "- INDEX: auto, the default, is IVF for segments that are large enough. hnsw adds a graph to "
     "each such segment, built in the background and searched from memory: faster where segments "
     "have a million rows, for twelve times the memory of the index; IVF serves until it is there. "
     "flat compares every row.\n"
     "- RECALL r: what searches without RECALL, NPROBE or EF aim at, 0.95 by default.\n"
     "- BITS: bits a dimension of the codes by which candidates are chosen before vectors are "
     "read; "
     "4 by default. 8 reads fewer vectors, 1 keeps no such codes.\n"
     "- COLUMNS: types are int64, double, string, bool and timestamp. Stands last."},
    {"vdrop", 2, VEXI_KIND_WRITE, vexi_command_vdrop, false, "collection", "name",
     "Drop a collection and all its rows.", "`OK`", NULL},
    {"vlist", 1, VEXI_KIND_READ, vexi_command_vlist, false, "collection", "",
     "List the collections.", "An array of names, in order.", NULL},
    {"vflush", -1, VEXI_KIND_LONG, vexi_command_vflush, false, "collection", "[name]",
     "Write the new rows of one collection, or of all, as segments, and take over what other "
     "engines committed.",
     "`OK` once it is committed.", NULL},
    {"vinfo", -1, VEXI_KIND_READ, vexi_command_vinfo, false, "collection", "[name]",
     "Describe a collection, `default` where none is named.",
     "A map, first with the names that Redis uses (`quant-type`, `vector-dim`, `size`, ...); null "
     "if there is no such collection.",
     NULL},
    {"vwarm", -2, VEXI_KIND_LONG, vexi_command_vwarm, false, "collection", "collection [VECTORS]",
     "Fetch what searches of a collection need, so that the first one does not wait for it.",
     "A map: `segments`; `index-bytes` and `data-bytes`, what is there now; `graphs` and "
     "`graphs-missing`, which are loaded in the background; `left-out-bytes`, for which there is "
     "no room.",
     "For lakes on `s3://`: of others there is nothing to fetch. Index files go into memory, up to "
     "`--cache-memory`; with VECTORS data files go into the cache, up to the larger of "
     "`--cache-memory` and `--cache-size`."},
    {"vimport", -2, VEXI_KIND_LONG, vexi_command_vimport, false, "collection",
     "uri [INTO collection]",
     "Import a file: Parquet, fvecs, bvecs, npy or JSON lines, as one commit.",
     "How many rows, an integer.",
     "Only files below the folders that `--import-dir` names. A collection that is missing is "
     "made."},
    {"keys", 2, VEXI_KIND_READ, vexi_command_keys, false, "collection", "pattern",
     "List the collections whose names match a pattern (`*`, `?`, `[a-z]`).", "An array of names.",
     NULL},
    {"scan", -2, VEXI_KIND_READ, vexi_command_scan, false, "collection",
     "cursor [MATCH pattern] [COUNT n] [TYPE vectorset]", "Walk the collections.",
     "An array of the next cursor (0 at the end) and an array of names.", NULL},
    {"type", 2, VEXI_KIND_READ, vexi_command_type, false, "collection", "name",
     "Tell whether a collection exists, as Redis' type of a key.", "`vectorset` or `none`", NULL},
    {"exists", -2, VEXI_KIND_READ, vexi_command_exists, false, "collection", "name [name ...]",
     "Count which of the collections exist.", "An integer.", NULL},
    {"del", -2, VEXI_KIND_WRITE, vexi_command_del, false, "collection", "name [name ...]",
     "Drop collections.", "How many there were, an integer.", NULL},
    {"dbsize", 1, VEXI_KIND_READ, vexi_command_dbsize, false, "collection", "",
     "Count the collections.", "An integer.", NULL},
    {"ping", -1, VEXI_KIND_INLINE, vexi_command_ping, false, "connection", "[message]",
     "Ask for a sign of life.", "`PONG`, or the message.", NULL},
    {"echo", 2, VEXI_KIND_INLINE, vexi_command_echo, false, "connection", "message",
     "Send a message back.", "The message.", NULL},
    {"hello", -1, VEXI_KIND_INLINE, vexi_command_hello, true, "connection",
     "[2|3 [AUTH user password] [SETNAME name]]", "Choose the protocol, RESP2 or RESP3.",
     "A map about the server.", NULL},
    {"auth", -2, VEXI_KIND_INLINE, vexi_command_auth, true, "connection", "[user] password",
     "Authenticate. The only user is `default`.", "`OK`", NULL},
    {"select", 2, VEXI_KIND_INLINE, vexi_command_select, false, "connection", "0",
     "Choose the database; there is only 0.", "`OK`", NULL},
    {"client", -2, VEXI_KIND_INLINE, vexi_command_client, false, "connection",
     "ID | GETNAME | SETNAME name | SETINFO LIB-NAME|LIB-VER value | INFO | LIST | NO-EVICT on|off "
     "| NO-TOUCH on|off | HELP",
     "About this connection, and the list of all.", "Depends on the subcommand.", NULL},
    {"command", -1, VEXI_KIND_INLINE, vexi_command_command, false, "connection",
     "[COUNT | LIST | INFO [name ...] | DOCS [name ...]]", "About the commands.",
     "As in Redis, from this table.", NULL},
    {"config", -2, VEXI_KIND_INLINE, vexi_command_config, false, "connection",
     "GET pattern [pattern ...]", "Read settings.", "A map of settings and values.",
     "The password never shows."},
    {"info", -1, VEXI_KIND_READ, vexi_command_info, false, "connection", "[section ...]",
     "Figures about the server.",
     "Text in the sections `server`, `clients`, `memory`, `stats`, `replication`, `lake` and "
     "`keyspace`.",
     NULL},
    {"reset", 1, VEXI_KIND_INLINE, vexi_command_reset, true, "connection", "",
     "Take the connection back to its beginning.", "`RESET`", NULL},
    {"quit", -1, VEXI_KIND_INLINE, vexi_command_quit, true, "connection", "",
     "Close the connection.", "`OK`", NULL},
};

const vexi_command *vexi_commands(size_t *count) {
    *count = sizeof table / sizeof table[0];
    return table;
}

/* Length and the letters at both ends tell nearly all names apart; what collides goes to the next
 * slot. */
static size_t slot_of(const char *name, size_t size) {
    unsigned first = (unsigned char)name[0] | 0x20u;
    unsigned second = (unsigned char)name[1] | 0x20u;
    unsigned last = (unsigned char)name[size - 1] | 0x20u;
    return (first * 3u + second * 17u + last * 31u + (unsigned)size) % VEXI_COMMAND_SLOTS;
}

void vexi_command_map_init(vexi_command_map *map) {
    memset(map, 0, sizeof *map);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        size_t slot = slot_of(table[i].name, strlen(table[i].name));
        while (map->slots[slot] != NULL) {
            slot = (slot + 1) % VEXI_COMMAND_SLOTS;
        }
        map->slots[slot] = &table[i];
    }
}

static bool same_name(const char *name, vex_string given) {
    for (size_t i = 0; i < given.size; i++) {
        unsigned char c = (unsigned char)given.data[i];
        c = c >= 'A' && c <= 'Z' ? (unsigned char)(c | 0x20u) : c;
        if (c != (unsigned char)name[i] || c == '\0') {
            return false;
        }
    }
    return name[given.size] == '\0';
}

const vexi_command *vexi_command_find(const vexi_command_map *map, vex_string name) {
    if (name.size < 2 || name.size > 16) {
        return NULL;
    }
    for (size_t slot = slot_of(name.data, name.size); map->slots[slot] != NULL;
         slot = (slot + 1) % VEXI_COMMAND_SLOTS) {
        if (same_name(map->slots[slot]->name, name)) {
            return map->slots[slot];
        }
    }
    return NULL;
}
