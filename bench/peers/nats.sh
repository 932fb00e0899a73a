#!/bin/sh
# NATS with JetStream, one server, to be loaded by its own client: it does not speak Kafka's protocol.
#
#   PORT=4222 nats.sh start DIR [KEY=VALUE]...
#
# KEY=VALUE are settings of JetStream, sync_interval=always for one. Prints address, directory,
# version, protocol and pid, one a line, then stays until SIGTERM. The server is built by Go into the
# user's cache once; NATS_SERVER names a binary. A load, for example, with github.com/nats-io/natscli:
#
#   nats --server nats://ADDRESS bench js pub async bench --create --storage file --size 1024 --clients 2 --msgs 1000000
set -eu

VERSION=v2.15.2
PORT=${PORT:-4222}

fail() {
	echo "nats.sh: $*" >&2
	exit 1
}

[ $# -ge 2 ] && [ "$1" = start ] || fail "usage: nats.sh start DIR [KEY=VALUE]..."
dir=$2
shift 2
mkdir -p "$dir"

# build puts the binary into a directory of its own and gives it its name when it is whole.
build() {
	command -v go >/dev/null || fail "there is no go here to build it with, and NATS_SERVER names no binary"
	echo "nats.sh: building nats-server $VERSION" >&2
	mkdir -p "$(dirname "$server")"
	work=$(mktemp -d "$server.XXXXXX")
	GOBIN="$work" CGO_ENABLED=0 go install "github.com/nats-io/nats-server/v2@$VERSION" >&2 || fail "Go could not build it"
	mv "$work/nats-server" "$server"
	rmdir "$work"
}

server=${NATS_SERVER:-${XDG_CACHE_HOME:-$HOME/.cache}/millrace-bench/nats-server-$VERSION}
[ -x "$server" ] || build

{
	echo "listen: \"127.0.0.1:$PORT\""
	echo "jetstream {"
	echo "  store_dir: \"$dir/data\""
	for kv in "$@"; do
		echo "  ${kv%%=*}: ${kv#*=}"
	done
	echo "}"
} >"$dir/nats.conf"

echo "address=127.0.0.1:$PORT"
echo "directory=$dir/data"
echo "version=nats-server $VERSION"
echo "protocol=nats"
echo "pid=$$"
exec "$server" -c "$dir/nats.conf" >&2
