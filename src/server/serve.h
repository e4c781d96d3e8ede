/* The server: `vexlake serve`. */
#ifndef VEXI_SERVER_SERVE_H
#define VEXI_SERVER_SERVE_H

/* Run the server with the arguments behind `serve` (argv[0] is "serve"); blocks until a signal ends
 * it. Returns the exit code of the program: 0 after a clean end or --help, 1 if it could not start
 * or end cleanly, 2 for arguments that make no sense. Messages go to stderr. */
int vexi_serve_command(int argc, char **argv);

#endif
