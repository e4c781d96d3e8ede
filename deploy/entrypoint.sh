#!/bin/sh
# Start the server of the image. Flags that the user gives come last, so they win over these.
# The password goes by a file: arguments are seen by everybody who may list processes.
set -eu
umask 077
conf=$(mktemp /tmp/vexlake.XXXXXX)
cat "${VEXLAKE_CONF:-/etc/vexlake/vexlake.conf}" >"$conf"
if [ -n "${VEXLAKE_PASSWORD:-}" ]; then
    printf '\nrequirepass %s\n' "$VEXLAKE_PASSWORD" >>"$conf"
fi
unset VEXLAKE_PASSWORD
exec vexlake serve --config "$conf" --bind 0.0.0.0 --http-bind 0.0.0.0 --http-port 9390 "$@"
