#!/usr/bin/env bash
# Compile the native programs with each installed compiler; every warning is an error.
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
    echo 'no C compiler is installed' >&2
    status=1
fi
exit "$status"
