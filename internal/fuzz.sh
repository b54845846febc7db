#!/bin/sh
# Runs every fuzz target of the module for a while each: internal/fuzz.sh [TIME]
set -eu
time=${1:-10s}
grep -rl '^func Fuzz' --include='*_test.go' internal cmd | while read -r file; do
	dir=$(dirname "$file")
	sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p' "$file" | while read -r name; do
		echo "== $dir $name"
		go test "./$dir" -run '^$' -fuzz "^$name\$" -fuzztime "$time" </dev/null
	done
done
