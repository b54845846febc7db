#!/bin/sh
# Runs every fuzz target of the module for a while each, two at a time with one worker
# each: internal/fuzz.sh [TIME]
set -eu
if [ "${1:-}" != one ]; then
	time=${1:-10s}
	# xargs ends with 123 to 125 if a target failed, and with 255 starts no other.
	grep -rl '^func Fuzz' --include='*_test.go' internal cmd | while read -r file; do
		sed -n "s|^func \(Fuzz[A-Za-z0-9_]*\).*|$(dirname "$file") \1|p" "$file"
	done | xargs -n 2 -P 2 "$0" one "$time"
	exit
fi

time=$2 dir=$3 name=$4
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if go test "./$dir" -run '^$' -fuzz "^$name\$" -fuzztime "$time" -parallel 1 >"$log" 2>&1 </dev/null; then
	echo "$dir $name: $(tail -n 1 "$log")"
	exit
fi
# Go's fuzzer may take the end of its own time for a failure (golang/go#75804). That has
# this one line in place of a finding; a finding writes its input.
if grep -A 1 -- "^--- FAIL: $name " "$log" | tail -n 1 | grep -q '^ *context deadline exceeded$' && ! grep -q 'Failing input' "$log"; then
	echo "$dir $name: nothing found"
	exit
fi
echo "$dir $name: FAILED"
cut -c 1-2000 "$log"
exit 255
