#!/usr/bin/env bash
# Runs the fuzz targets in turn, each for so many seconds, and fails if one has found something: run.sh SECONDS [TARGET]...
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:?usage: run.sh SECONDS [TARGET]...}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(ls fuzz_targets | sed 's/\.rs$//')

# Files of the readers that take paths: in memory where there is such a folder.
shm=/dev/shm
[ -d "$shm" ] || shm=${TMPDIR:-/tmp}
CLOZE_FUZZ_FOLDER=$(mktemp -d "$shm/cloze-fuzz.XXXXXX")
export CLOZE_FUZZ_FOLDER
trap 'rm -rf "$CLOZE_FUZZ_FOLDER"' EXIT

# Without the search for leaks after each input, and without keeping freed memory: both take most of the time.
export ASAN_OPTIONS=${ASAN_OPTIONS:-quarantine_size_mb=1}

found=()
for target in "${targets[@]}"; do
    echo "== $target"
    mkdir -p "corpus/$target"
    options=(-max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=512 -detect_leaks=0
        -print_final_stats=1)
    cargo +nightly fuzz run --fuzz-dir . "$target" "corpus/$target" "seeds/$target" -- "${options[@]}" || found+=("$target")
done
[ ${#found[@]} -eq 0 ] || { echo "findings in: ${found[*]}; the inputs are in fuzz/artifacts"; exit 1; }
