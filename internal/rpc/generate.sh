#!/bin/sh
# Regenerates internal/rpc/gen from proto/. Needs protoc and the .proto files of Google's own
# types (Debian: protobuf-compiler and libprotobuf-dev); the plugins are those that
# tools/go.mod pins. Run it from anywhere in the module.
set -eu

fail() {
	echo "generate.sh: $1; internal/rpc/gen is as it was" >&2
	exit 1
}

root=$(cd "$(dirname "$0")/../.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

command -v protoc >"$tmp/where" || fail "there is no protoc: install it (Debian: protobuf-compiler)"
mkdir "$tmp/plugins" "$tmp/probe" "$tmp/out"
cat >"$tmp/probe/probe.proto" <<'EOF'
syntax = "proto3";
import "google/protobuf/duration.proto";
import "google/protobuf/timestamp.proto";
message Probe {
  google.protobuf.Duration duration = 1;
  google.protobuf.Timestamp timestamp = 2;
}
EOF
protoc --proto_path="$tmp/probe" --descriptor_set_out="$tmp/probe/out" probe.proto 2>"$tmp/probe/err" || {
	cat "$tmp/probe/err" >&2
	fail "protoc does not find google/protobuf/*.proto: install them (Debian: libprotobuf-dev)"
}

(cd "$root/tools" && go build -o "$tmp/plugins/" \
	google.golang.org/protobuf/cmd/protoc-gen-go \
	connectrpc.com/connect/cmd/protoc-gen-connect-go)

cd "$root"
find proto -name '*.proto' | sort | PATH="$tmp/plugins:$PATH" xargs protoc \
	--proto_path=proto \
	--go_out="$tmp/out" --go_opt=module=dragonload \
	--connect-go_out="$tmp/out" --connect-go_opt=module=dragonload
rm -rf internal/rpc/gen
cp -R "$tmp/out/internal/rpc/gen" internal/rpc/gen
