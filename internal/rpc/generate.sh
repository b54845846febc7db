#!/bin/sh
# Regenerates internal/rpc/gen from proto/. Needs protoc (Debian: protobuf-compiler);
# the plugins are those that tools/go.mod pins. Run it from anywhere in the module.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
plugins=$(mktemp -d)
trap 'rm -rf "$plugins"' EXIT

(cd "$root/tools" && go build -o "$plugins/" \
	google.golang.org/protobuf/cmd/protoc-gen-go \
	connectrpc.com/connect/cmd/protoc-gen-connect-go)

cd "$root"
rm -rf internal/rpc/gen
find proto -name '*.proto' | sort | PATH="$plugins:$PATH" xargs protoc \
	--proto_path=proto \
	--go_out=. --go_opt=module=dragonload \
	--connect-go_out=. --connect-go_opt=module=dragonload
