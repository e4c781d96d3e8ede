/* docs/commands.md, from the command table and the settings table. tools/gen-docs writes it, and
 * checks that the file in the repository is what the tables say. */
#include <ctype.h>
#include <string.h>

#include "server/commands.h"

static void upper(vexi_buffer *out, const char *name) {
    for (; *name != '\0'; name++) {
        vexi_buffer_u8(out, (uint8_t)toupper((unsigned char)*name));
    }
}

void vexi_docs_markdown(vexi_buffer *out) {
    static const struct {
        const char *group;
        const char *title;
    } groups[] = {
        {"vector", "Rows"}, {"collection", "Collections"}, {"connection", "Connection and server"}};
    vexi_buffer_text(
        out,
        "# Commands\n\n"
        "<!-- Made by tools/gen-docs from src/server/command_table.c and src/server/settings.c: "
        "change those. -->\n\n"
        "The server speaks RESP2 and RESP3 (`HELLO 3`) and takes inline commands. Names and "
        "options are read in any case. Replies keep the order of a pipeline's commands.\n\n"
        "**Collections.** Commands on rows work on the collection `default`; `IN collection` as "
        "the last option names another. If the last argument but one of such a command is IN, in "
        "any case, it is the option: an id `IN` is reached by adding `IN default`.\n\n"
        "**Vectors.** A vector argument is text if it begins with `[`, ends with `]` and holds "
        "only digits, `+ - . e E`, commas and white space between them; anything else is a blob "
        "of little-endian float32, four bytes for each dimension.\n\n"
        "**Replies.** Maps are flat arrays of name and value in RESP2. Numbers are doubles in "
        "RESP3 and bulk strings in RESP2: the shortest text that reads back to the same float32 "
        "(vectors) or double (distances). Booleans are `#t` and `#f`, in RESP2 1 and 0. "
        "Timestamps are ISO 8601 text in UTC.\n\n"
        "**Errors** begin with `ERR` and say what is wrong; they change nothing and leave the "
        "connection usable. Bytes that are no RESP, or a command above `query-buffer-limit`, end "
        "it after the message.\n");
    size_t count;
    const vexi_command *table = vexi_commands(&count);
    for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++) {
        vexi_buffer_format(out, "\n## %s\n", groups[g].title);
        for (size_t i = 0; i < count; i++) {
            if (strcmp(table[i].group, groups[g].group) != 0) {
                continue;
            }
            vexi_buffer_text(out, "\n### ");
            upper(out, table[i].name);
            vexi_buffer_text(out, "\n\n    ");
            upper(out, table[i].name);
            vexi_buffer_format(out, "%s%s\n\n%s\n\nReply: %s\n",
                               table[i].syntax[0] != '\0' ? " " : "", table[i].syntax,
                               table[i].summary, table[i].reply);
            if (table[i].notes != NULL) {
                vexi_buffer_format(out, "\n%s\n", table[i].notes);
            }
        }
    }
    vexi_buffer_text(out,
                     "\n## Settings\n\n"
                     "Flags of `vexlake serve` (`--name value`) and keys of its configuration file "
                     "(`name value` on a line, # begins a comment). Sizes take kb, mb or gb.\n\n");
    vexi_settings_markdown(out);
}
