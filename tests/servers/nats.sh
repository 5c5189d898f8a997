#!/usr/bin/env bash
# Starts a NATS server with JetStream on a free loopback port, and prints one line when it is ready:
#   nats://127.0.0.1:PORT PID MONITOR_URL FOLDER
#
# usage: nats.sh [--folder DIR] [--port PORT] [--config FILE]
#   --folder  where streams and the log are kept (default: a new temporary folder)
#   --port    the port of an earlier run, to come back where it was (default: a free one)
#   --config  further server configuration: users, TLS, limits
#   --owner   a process; when it has ended, however it did, so does the server (default: none)
#
# The binary is $NATS_SERVER, else the one in the tests' cache, which is built from the official source if it is absent.
# The server goes on when the script has ended: end it by its PID.
set -euo pipefail

version=v2.15.2
folder='' port=-1 config='' owner=''
while [ $# -gt 0 ]; do
  case $1 in
    --folder) folder=$2 ;;
    --port) port=$2 ;;
    --config) config=$2 ;;
    --owner) owner=$2 ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
  esac
  shift 2
done

cache=${XDG_CACHE_HOME:-$HOME/.cache}/tidegate-tests/bin
server=${NATS_SERVER:-$cache/nats-server}
if [ ! -x "$server" ]; then
  if [ -n "${NATS_SERVER:-}" ]; then echo "nats.sh: NATS_SERVER=$server is no program" >&2; exit 1; fi
  if ! command -v go >/dev/null; then
    echo "nats.sh: there is no nats-server: install Go 1.25 or newer, or set NATS_SERVER to one" >&2; exit 1
  fi
  echo "nats.sh: installing nats-server $version into $cache (once, about a minute)" >&2
  GOBIN=$cache CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' "github.com/nats-io/nats-server/v2@$version" >&2
fi

[ -n "$folder" ] || folder=$(mktemp -d)
mkdir -p "$folder"
rm -f "$folder"/nats-server_*.ports
arguments=(-a 127.0.0.1 -p "$port" -m -1 -js -sd "$folder" --ports_file_dir "$folder" -l "$folder/log")
[ -z "$config" ] || arguments+=(-c "$config")
"$server" "${arguments[@]}" </dev/null >/dev/null 2>"$folder/stderr" &
pid=$!
if [ -n "$owner" ]; then
  (while kill -0 "$owner"; do kill -0 "$pid" || exit 0; sleep 1; done; kill -9 "$pid") </dev/null >/dev/null 2>&1 &
fi

# The server writes its ports when it listens, and does that after JetStream has recovered its streams.
ports=$folder/nats-server_$pid.ports
for _ in $(seq 1500); do
  if [ -s "$ports" ]; then break; fi
  if ! kill -0 "$pid" 2>/dev/null; then
    echo "nats.sh: the server has ended:" >&2; cat "$folder/stderr" "$folder/log" >&2 || true; exit 1
  fi
  sleep 0.02
done
address() { grep -o "\"$1://[^\"]*\"" "$ports" | head -n 1 | tr -d '"'; }
if ! client=$(address nats || address tls) || ! monitor=$(address http); then
  echo "nats.sh: the server does not listen:" >&2; cat "$folder/log" >&2 || true; kill "$pid"; exit 1
fi
echo "$client $pid $monitor $folder"
