/* Commands about the connection and the server, answered on the loop. */
#include <stdio.h>
#include <string.h>

#include "server/arguments.h"
#include "server/commands.h"

bool vexi_secret_equal(vex_string given, const char *secret) {
    size_t size = strlen(secret);
    unsigned char difference = given.size == size ? 0 : 1;
    /* As many steps as the given text is long, whatever the secret is. */
    for (size_t i = 0; i < given.size; i++) {
        difference |= (unsigned char)(given.data[i] ^ secret[size > 0 ? i % size : 0]);
    }
    return difference == 0;
}

static void wrong_arity(vexi_call *call, const char *name) {
    vexi_resp_errorf(call->reply, "ERR wrong number of arguments for '%s' command", name);
}

/* Text for an error message: printable, cut. */
static const char *shown(vex_string text, char out[65]) {
    size_t size = text.size < 64 ? text.size : 64;
    for (size_t i = 0; i < size; i++) {
        char c = text.data[i];
        out[i] = c >= 0x20 && c < 0x7f ? c : '?';
    }
    out[size] = '\0';
    return out;
}

static void unknown_subcommand(vexi_call *call, const char *name) {
    char text[65];
    vexi_resp_errorf(call->reply, "ERR unknown subcommand '%s'. Try %s HELP.",
                     shown(call->arguments[1], text), name);
}

void vexi_command_ping(vexi_call *call) {
    if (call->argument_count > 2) {
        wrong_arity(call, "ping");
    } else if (call->argument_count == 2) {
        vexi_resp_bulk(call->reply, call->arguments[1].data, call->arguments[1].size);
    } else {
        vexi_buffer_append(call->reply, "+PONG\r\n", 7);
    }
}

void vexi_command_echo(vexi_call *call) {
    vexi_resp_bulk(call->reply, call->arguments[1].data, call->arguments[1].size);
}

/* Check a user and password; the only user is `default`. */
static bool authenticate(vexi_call *call, vex_string user, vex_string password) {
    const char *secret = call->server->settings.requirepass;
    bool good = vexi_secret_equal(password, secret);
    if (!vexi_string_is(user, "default") || (secret[0] != '\0' && !good)) {
        vexi_log_line(&call->server->log, VEXI_LOG_WARNING, "server",
                      "authentication failed client=%s", call->client->address);
        vexi_resp_error(call->reply,
                        "WRONGPASS invalid username-password pair or user is disabled.");
        return false;
    }
    call->client->authenticated = true;
    return true;
}

void vexi_command_auth(vexi_call *call) {
    if (call->argument_count > 3) {
        vexi_resp_error(call->reply, "ERR syntax error");
        return;
    }
    vex_string user = vexi_string_of("default");
    if (call->argument_count == 3) {
        user = call->arguments[1];
    } else if (call->server->settings.requirepass[0] == '\0') {
        vexi_resp_error(call->reply,
                        "ERR AUTH <password> called without any password configured for the "
                        "default user. Are you sure your configuration is correct?");
        return;
    }
    if (authenticate(call, user, call->arguments[call->argument_count - 1])) {
        vexi_resp_simple(call->reply, "OK");
    }
}

/* Copy a client's or library's name: printable ASCII without spaces, as Redis demands. */
static bool set_text(char *out, size_t size, vex_string text) {
    if (text.size >= size) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '!' || text.data[i] > '~') {
            return false;
        }
    }
    memcpy(out, text.data, text.size);
    out[text.size] = '\0';
    return true;
}

static bool set_name(vexi_call *call, vex_string name) {
    if (!set_text(call->client->name, sizeof call->client->name, name)) {
        vexi_resp_error(call->reply, "ERR Client names cannot contain spaces, newlines or special "
                                     "characters, and have at most 63 bytes.");
        return false;
    }
    return true;
}

void vexi_command_hello(vexi_call *call) {
    const vex_string *arguments = call->arguments;
    uint32_t count = call->argument_count;
    vexi_client *client = call->client;
    int64_t version = client->protocol;
    if (count > 1) {
        if (!vexi_parse_i64(arguments[1], &version)) {
            vexi_resp_error(call->reply, "ERR Protocol version is not an integer or out of range");
            return;
        }
        if (version != 2 && version != 3) {
            vexi_resp_error(call->reply, "NOPROTO unsupported protocol version");
            return;
        }
    }
    vex_string name = {0};
    for (uint32_t i = 2; i < count; i++) {
        if (vexi_word_is(arguments[i], "AUTH") && i + 2 < count) {
            if (!authenticate(call, arguments[i + 1], arguments[i + 2])) {
                return;
            }
            i += 2;
        } else if (vexi_word_is(arguments[i], "SETNAME") && i + 1 < count) {
            name = arguments[++i];
        } else {
            char text[65];
            vexi_resp_errorf(call->reply, "ERR Syntax error in HELLO option '%s'",
                             shown(arguments[i], text));
            return;
        }
    }
    if (!client->authenticated) {
        vexi_resp_error(call->reply,
                        "NOAUTH HELLO must be called with the client already authenticated, "
                        "otherwise the HELLO <proto> AUTH <user> <pass> option can be used to "
                        "authenticate the client and select the RESP protocol version at the same "
                        "time");
        return;
    }
    if (name.data != NULL && !set_name(call, name)) {
        return;
    }
    client->protocol = version == 3 ? VEXI_RESP3 : VEXI_RESP2;
    vexi_buffer *out = call->reply;
    vexi_resp_map(out, client->protocol, 7);
    vexi_resp_bulk_text(out, "server");
    vexi_resp_bulk_text(out, "vexlake");
    vexi_resp_bulk_text(out, "version");
    vexi_resp_bulk_text(out, vex_version());
    vexi_resp_bulk_text(out, "proto");
    vexi_resp_integer(out, version);
    vexi_resp_bulk_text(out, "id");
    vexi_resp_integer(out, (int64_t)client->id);
    vexi_resp_bulk_text(out, "mode");
    vexi_resp_bulk_text(out, "standalone");
    vexi_resp_bulk_text(out, "role");
    vexi_resp_bulk_text(out, "master");
    vexi_resp_bulk_text(out, "modules");
    vexi_resp_array(out, 0);
}

void vexi_command_select(vexi_call *call) {
    int64_t index;
    if (!vexi_parse_i64(call->arguments[1], &index)) {
        vexi_resp_error(call->reply, "ERR value is not an integer or out of range");
    } else if (index != 0) {
        vexi_resp_error(call->reply, "ERR DB index is out of range");
    } else {
        vexi_resp_simple(call->reply, "OK");
    }
}

void vexi_command_quit(vexi_call *call) {
    vexi_resp_simple(call->reply, "OK");
    call->client->close_after = true;
}

void vexi_command_reset(vexi_call *call) {
    vexi_client *client = call->client;
    client->protocol = VEXI_RESP2;
    client->name[0] = '\0';
    client->authenticated = call->server->settings.requirepass[0] == '\0';
    vexi_resp_simple(call->reply, "RESET");
}

/* ---- CLIENT ---------------------------------------------------------------------------------- */

static void describe_client(const vexi_client *client, vexi_buffer *out) {
    uint64_t now = vexi_monotonic_ns(client->server->env);
    uint64_t idle = now > client->active_ns ? now - client->active_ns : 0;
    vexi_buffer_format(
        out,
        "id=%llu addr=%s name=%s age=%llu idle=%llu flags=N db=0 qbuf=%zu "
        "omem=%zu cmd=%s user=default resp=%d lib-name=%s lib-ver=%s tot-cmds=%llu",
        (unsigned long long)client->id, client->address, client->name,
        (unsigned long long)((now - client->connected_ns) / 1000000000u),
        (unsigned long long)(idle / 1000000000u), client->input_size - client->input_start,
        client->output.size + client->writing_size,
        client->last_command != NULL ? client->last_command->name : "NULL", (int)client->protocol,
        client->library_name, client->library_version, (unsigned long long)client->command_count);
    vexi_buffer_text(out, "\n");
}

static void client_list(vexi_call *call, bool all) {
    vexi_buffer text;
    vexi_buffer_init(&text, call->server->env, 64u << 20);
    for (const vexi_client *client = all ? call->server->clients : call->client; client != NULL;
         client = all ? client->next : NULL) {
        if (!client->closing) {
            describe_client(client, &text);
        }
    }
    if (text.failed) {
        vexi_resp_error(call->reply, "ERR out of memory");
    } else {
        vexi_resp_verbatim(call->reply, call->protocol, text.data, text.size);
    }
    vexi_buffer_deinit(&text);
}

static void client_setinfo(vexi_call *call) {
    vexi_client *client = call->client;
    bool fits;
    if (vexi_word_is(call->arguments[2], "LIB-NAME")) {
        fits = set_text(client->library_name, sizeof client->library_name, call->arguments[3]);
    } else if (vexi_word_is(call->arguments[2], "LIB-VER")) {
        fits =
            set_text(client->library_version, sizeof client->library_version, call->arguments[3]);
    } else {
        char text[65];
        vexi_resp_errorf(call->reply, "ERR Unrecognized option '%s'",
                         shown(call->arguments[2], text));
        return;
    }
    if (fits) {
        vexi_resp_simple(call->reply, "OK");
    } else {
        vexi_resp_error(call->reply,
                        "ERR lib-name and lib-ver cannot contain spaces, newlines or special "
                        "characters, and are short.");
    }
}

static void help(vexi_call *call, const char *const *lines, size_t count) {
    vexi_resp_array(call->reply, count);
    for (size_t i = 0; i < count; i++) {
        vexi_resp_simple(call->reply, lines[i]);
    }
}

void vexi_command_client(vexi_call *call) {
    static const char *const lines[] = {
        "CLIENT <subcommand>. Subcommands are:",
        "ID, GETNAME, SETNAME name, SETINFO LIB-NAME|LIB-VER value, INFO, LIST",
        "NO-EVICT ON|OFF, NO-TOUCH ON|OFF, REPLY ON, TRACKING OFF (accepted, without effect)"};
    const vex_string *arguments = call->arguments;
    uint32_t count = call->argument_count;
    vex_string sub = arguments[1];
    if (vexi_word_is(sub, "ID") && count == 2) {
        vexi_resp_integer(call->reply, (int64_t)call->client->id);
    } else if (vexi_word_is(sub, "GETNAME") && count == 2) {
        if (call->client->name[0] == '\0') {
            vexi_resp_null(call->reply, call->protocol);
        } else {
            vexi_resp_bulk_text(call->reply, call->client->name);
        }
    } else if (vexi_word_is(sub, "SETNAME") && count == 3) {
        if (set_name(call, arguments[2])) {
            vexi_resp_simple(call->reply, "OK");
        }
    } else if (vexi_word_is(sub, "SETINFO") && count == 4) {
        client_setinfo(call);
    } else if (vexi_word_is(sub, "INFO") && count == 2) {
        client_list(call, false);
    } else if (vexi_word_is(sub, "LIST")) {
        client_list(call, true);
    } else if ((vexi_word_is(sub, "NO-EVICT") || vexi_word_is(sub, "NO-TOUCH")) && count == 3 &&
               (vexi_word_is(arguments[2], "ON") || vexi_word_is(arguments[2], "OFF"))) {
        vexi_resp_simple(call->reply, "OK");
    } else if ((vexi_word_is(sub, "REPLY") && count == 3 && vexi_word_is(arguments[2], "ON")) ||
               (vexi_word_is(sub, "TRACKING") && count == 3 && vexi_word_is(arguments[2], "OFF"))) {
        vexi_resp_simple(call->reply, "OK");
    } else if (vexi_word_is(sub, "HELP")) {
        help(call, lines, sizeof lines / sizeof lines[0]);
    } else {
        unknown_subcommand(call, "CLIENT");
    }
}

/* ---- COMMAND --------------------------------------------------------------------------------- */

static bool is_write(const vexi_command *command) {
    return command->kind == VEXI_KIND_PUT || command->kind == VEXI_KIND_DELETE ||
           command->kind == VEXI_KIND_WRITE || command->kind == VEXI_KIND_LONG;
}

/* An entry of COMMAND and COMMAND INFO, with the ten fields that Redis 7 gives. */
static void write_command(vexi_call *call, const vexi_command *command) {
    vexi_buffer *out = call->reply;
    if (command == NULL) {
        vexi_resp_null(out, call->protocol);
        return;
    }
    vexi_resp_array(out, 10);
    vexi_resp_bulk_text(out, command->name);
    vexi_resp_integer(out, command->arity);
    bool fast = command->kind == VEXI_KIND_INLINE;
    vexi_resp_array(out, (fast ? 2 : 1) + (command->before_auth ? 1 : 0));
    vexi_resp_simple(out, is_write(command) ? "write" : "readonly");
    if (fast) {
        vexi_resp_simple(out, "fast");
    }
    if (command->before_auth) {
        vexi_resp_simple(out, "no_auth");
    }
    for (int i = 0; i < 3; i++) {
        vexi_resp_integer(out, 0); /* collections are named by an option, not by position */
    }
    vexi_resp_array(out, 1);
    char category[32];
    snprintf(category, sizeof category, "@%s", command->group);
    vexi_resp_simple(out, category);
    vexi_resp_array(out, 0);
    vexi_resp_array(out, 0);
    vexi_resp_array(out, 0);
}

/* An entry of COMMAND DOCS. The syntax stands as one argument, which clients show as a hint. */
static void write_docs(vexi_call *call, const vexi_command *command) {
    vexi_buffer *out = call->reply;
    bool has_syntax = command->syntax[0] != '\0';
    vexi_resp_bulk_text(out, command->name);
    vexi_resp_map(out, call->protocol, has_syntax ? 4 : 3);
    vexi_resp_bulk_text(out, "summary");
    vexi_resp_bulk_text(out, command->summary);
    vexi_resp_bulk_text(out, "since");
    vexi_resp_bulk_text(out, "0.1.0");
    vexi_resp_bulk_text(out, "group");
    vexi_resp_bulk_text(out, command->group);
    if (has_syntax) {
        vexi_resp_bulk_text(out, "arguments");
        vexi_resp_array(out, 1);
        vexi_resp_map(out, call->protocol, 3);
        vexi_resp_bulk_text(out, "name");
        vexi_resp_bulk_text(out, command->syntax);
        vexi_resp_bulk_text(out, "type");
        vexi_resp_bulk_text(out, "string");
        vexi_resp_bulk_text(out, "display_text");
        vexi_resp_bulk_text(out, command->syntax);
    }
}

void vexi_command_command(vexi_call *call) {
    static const char *const lines[] = {
        "COMMAND [COUNT|LIST|INFO [name ...]|DOCS [name ...]]: what this server understands."};
    size_t count;
    const vexi_command *table = vexi_commands(&count);
    const vex_string *arguments = call->arguments;
    uint32_t argument_count = call->argument_count;
    bool named = argument_count > 2;
    if (argument_count == 1 || (vexi_word_is(arguments[1], "INFO") && !named)) {
        vexi_resp_array(call->reply, count);
        for (size_t i = 0; i < count; i++) {
            write_command(call, &table[i]);
        }
    } else if (vexi_word_is(arguments[1], "COUNT") && !named) {
        vexi_resp_integer(call->reply, (int64_t)count);
    } else if (vexi_word_is(arguments[1], "LIST") && !named) {
        vexi_resp_array(call->reply, count);
        for (size_t i = 0; i < count; i++) {
            vexi_resp_bulk_text(call->reply, table[i].name);
        }
    } else if (vexi_word_is(arguments[1], "INFO")) {
        vexi_resp_array(call->reply, argument_count - 2);
        for (uint32_t i = 2; i < argument_count; i++) {
            write_command(call, vexi_command_find(&call->server->commands, arguments[i]));
        }
    } else if (vexi_word_is(arguments[1], "DOCS")) {
        size_t known = named ? 0 : count;
        for (uint32_t i = 2; i < argument_count; i++) {
            known += vexi_command_find(&call->server->commands, arguments[i]) != NULL ? 1 : 0;
        }
        vexi_resp_map(call->reply, call->protocol, known);
        for (size_t i = 0; !named && i < count; i++) {
            write_docs(call, &table[i]);
        }
        for (uint32_t i = 2; i < argument_count; i++) {
            const vexi_command *command = vexi_command_find(&call->server->commands, arguments[i]);
            if (command != NULL) {
                write_docs(call, command);
            }
        }
    } else if (vexi_word_is(arguments[1], "HELP")) {
        help(call, lines, 1);
    } else {
        unknown_subcommand(call, "COMMAND");
    }
}

/* ---- CONFIG ---------------------------------------------------------------------------------- */

/* The i-th setting, behind them two that clients of Redis ask for: `save`, for which there is
 * nothing to tell, and `appendonly`: every write is logged. */
static bool config_at(const vexi_settings *settings, size_t i, const char **name, char *value,
                      size_t size) {
    if (vexi_settings_at(settings, i, name, value, size)) {
        return true;
    }
    const char *ignored;
    size_t count = i;
    while (count > 0 && !vexi_settings_at(settings, count - 1, &ignored, value, size)) {
        count--;
    }
    if (i - count > 1) {
        return false;
    }
    *name = i == count ? "save" : "appendonly";
    snprintf(value, size, "%s", i == count ? "" : "yes");
    return true;
}

void vexi_command_config(vexi_call *call) {
    static const char *const lines[] = {"CONFIG GET pattern [pattern ...]: settings and values."};
    const vex_string *arguments = call->arguments;
    if (vexi_word_is(arguments[1], "GET") && call->argument_count >= 3) {
        char value[VEXI_IMPORT_DIRS_MAX * VEXI_TEXT_SETTING_SIZE];
        const char *name;
        for (int pass = 0; pass < 2; pass++) {
            size_t found = 0;
            for (size_t i = 0; config_at(&call->server->settings, i, &name, value, sizeof value);
                 i++) {
                bool matches = false;
                for (uint32_t a = 2; a < call->argument_count; a++) {
                    matches = matches || vexi_glob_match(arguments[a], vexi_string_of(name), true);
                }
                found += matches ? 1 : 0;
                if (matches && pass == 1) {
                    vexi_resp_bulk_text(call->reply, name);
                    vexi_resp_bulk_text(call->reply, value);
                }
            }
            if (pass == 0) {
                vexi_resp_map(call->reply, call->protocol, found);
            }
        }
    } else if (vexi_word_is(arguments[1], "SET")) {
        vexi_resp_error(call->reply, "ERR settings are fixed while the server runs; change the "
                                     "configuration file or flags and start it again");
    } else if (vexi_word_is(arguments[1], "HELP")) {
        help(call, lines, 1);
    } else {
        unknown_subcommand(call, "CONFIG");
    }
}
