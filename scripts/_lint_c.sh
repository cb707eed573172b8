#!/usr/bin/env bash
# Compile the native programs with every warning an error, with each compiler that is here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../supervisor/native"

status=0
found=
for compiler in cc musl-gcc clang; do
    command -v "$compiler" >/dev/null || continue
    found=1
    for source in *.c; do
        "$compiler" @compile_flags.txt -Werror -c -o /dev/null "$source" || status=1
    done
done
if [ -z "$found" ]; then
    echo 'there is no C compiler here' >&2
    status=1
fi
exit "$status"
