#!/usr/bin/env bash
# Starts Toxiproxy, a TCP proxy that makes connections bad when told to, on a free loopback port, and prints one line when it is ready:
#   http://127.0.0.1:PORT PID
# where its API is (https://github.com/Shopify/toxiproxy#http-api). It has no proxies yet.
#
# usage: toxiproxy.sh [--owner PID]
#   --owner  a process; when it has ended, however it did, so does the proxy (default: none)
#
# The binary is $TOXIPROXY_SERVER, else the one in the tests' cache, which is built from the official source if it is absent.
# The proxy goes on when the script has ended: end it by its PID.
set -euo pipefail

version=v2.12.0
owner=''
while [ $# -gt 0 ]; do
  case $1 in
    --owner) owner=$2 ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
  esac
  shift 2
done

cache=${XDG_CACHE_HOME:-$HOME/.cache}/tidegate-tests/bin
server=${TOXIPROXY_SERVER:-$cache/toxiproxy-server}
if [ ! -x "$server" ]; then
  if [ -n "${TOXIPROXY_SERVER:-}" ]; then echo "toxiproxy.sh: TOXIPROXY_SERVER=$server is no program" >&2; exit 1; fi
  if ! command -v go >/dev/null; then
    echo "toxiproxy.sh: there is no Toxiproxy: install Go 1.25 or newer, or set TOXIPROXY_SERVER to one" >&2; exit 1
  fi
  echo "toxiproxy.sh: installing Toxiproxy $version into $cache (once, some seconds)" >&2
  # Go calls the program by its folder, `server`; the cache has other servers, so it gets its own name.
  built=$(mktemp -d)
  GOBIN=$built CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' "github.com/Shopify/toxiproxy/v2/cmd/server@$version" >&2
  mkdir -p "$cache"
  mv "$built/server" "$server.$$"
  mv "$server.$$" "$server"
  rmdir "$built"
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# It can't be asked which port it got, so it is told one; if that was taken meanwhile it says so and goes on without.
for _ in $(seq 20); do
  port=$((20000 + (RANDOM * 32768 + RANDOM) % 40000))
  "$server" -host 127.0.0.1 -port "$port" </dev/null >"$log" 2>&1 &
  pid=$!
  for _ in $(seq 250); do
    if grep -q 'address already in use' "$log"; then break; fi
    if ! kill -0 "$pid" 2>/dev/null; then echo "toxiproxy.sh: it has ended:" >&2; cat "$log" >&2; exit 1; fi
    # Only a port that it listens on itself is its own.
    if curl -sf -o /dev/null "http://127.0.0.1:$port/version" && ! grep -q 'finished with error' "$log"; then
      if [ -n "$owner" ]; then
        (while kill -0 "$owner"; do kill -0 "$pid" || exit 0; sleep 1; done; kill -9 "$pid") </dev/null >/dev/null 2>&1 &
      fi
      echo "http://127.0.0.1:$port $pid"
      exit 0
    fi
    sleep 0.02
  done
  kill "$pid" 2>/dev/null || true
done
echo "toxiproxy.sh: it does not listen:" >&2; cat "$log" >&2; exit 1
