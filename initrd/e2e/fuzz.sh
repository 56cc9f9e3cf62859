#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# fuzz.sh SECONDS: runs each fuzz test of the checkout for that long, one after the other. It ends with the first input that
# fails, which go test has then written to the package's testdata/fuzz.
set -eu
case ${1-} in
'' | *[!0-9]*)
	echo 'usage: fuzz.sh SECONDS' >&2
	exit 64
	;;
esac
cd "$(dirname "$0")/../.."
list=$(git grep -n '^func Fuzz' -- '*_test.go' | sed -n 's,^\(.*\)/[^/]*:[0-9]*:func \(Fuzz[A-Za-z0-9_]*\)(.*,\1 \2,p')
[ -n "$list" ] || {
	echo 'fuzz.sh: no fuzz test is there' >&2
	exit 1
}
# 10 minutes more, for the build and for the inputs that are known
echo "$list" | while read -r dir name; do
	echo "fuzz.sh: $name of $dir, $1 s"
	timeout $(($1 + 600)) go test -run '^$' -fuzz "^$name\$" -fuzztime "$1s" "./$dir" </dev/null || {
		echo "fuzz.sh: $name of $dir failed; to see it again: go test -run $name ./$dir" >&2
		exit 1
	}
done
