/* The handlers of the command table. Those of the kind INLINE run on the loop, others on a worker.
 */
#ifndef VEXI_SERVER_COMMANDS_H
#define VEXI_SERVER_COMMANDS_H

#include "server/server_internal.h"

/* commands_connection.c */
void vexi_command_ping(vexi_call *call);
void vexi_command_echo(vexi_call *call);
void vexi_command_hello(vexi_call *call);
void vexi_command_auth(vexi_call *call);
void vexi_command_select(vexi_call *call);
void vexi_command_client(vexi_call *call);
void vexi_command_command(vexi_call *call);
void vexi_command_config(vexi_call *call);
void vexi_command_quit(vexi_call *call);
void vexi_command_reset(vexi_call *call);

/* commands_collection.c */
void vexi_command_vcreate(vexi_call *call);
void vexi_command_vdrop(vexi_call *call);
void vexi_command_vlist(vexi_call *call);
void vexi_command_vflush(vexi_call *call);
void vexi_command_vinfo(vexi_call *call);
void vexi_command_vwarm(vexi_call *call);
void vexi_command_vimport(vexi_call *call);

/* commands_keys.c */
void vexi_command_keys(vexi_call *call);
void vexi_command_scan(vexi_call *call);
void vexi_command_type(vexi_call *call);
void vexi_command_exists(vexi_call *call);
void vexi_command_del(vexi_call *call);
void vexi_command_dbsize(vexi_call *call);
void vexi_command_info(vexi_call *call);

/* docs.c: docs/commands.md. */
void vexi_docs_markdown(vexi_buffer *out);

/* glob.c: Redis' patterns: * ? [a-z] [^a] and \ before a character to take it literally. */
bool vexi_glob_match(vex_string pattern, vex_string text, bool ignore_case);

/* Whether two secrets are equal, in a time that does not depend on where they differ. */
bool vexi_secret_equal(vex_string given, const char *secret);

/* The real path of `uri` (a path or file://path) if it lies below one of the import folders.
 *
 * VEX_INVALID  no import folder is set, the file lies outside of them, or does not exist: the
 *              message does not tell which of the last two. */
vex_status vexi_import_path(const vexi_settings *settings, vex_string uri, char *out, size_t size,
                            vex_error *err);

#endif
