#!/usr/bin/env bash
# Checks and measures Cloze on a machine with an NVIDIA GPU. Everything is built before, on any machine with the Rust toolchain:
#
#   benches/gpu.sh build               here: the binaries, as gpu-kit/kit.tar.gz (about 40 MB)
#   benches/gpu.sh check FOLDER        there, in a copy of the repository with gpu-kit/: all checks on the GPU, 3 minutes at most
#   benches/gpu.sh speed FOLDER        there: tokens/s, share of the peak and memory, beside PyTorch, 5 minutes at most
#
# FOLDER gets the complete output; the last lines are a table. PyTorch and Transformers are those of `python3`, and so are NVIDIA's
# libraries, unless CLOZE_CUDA names their folder. compute-sanitizer runs if it is on the path.
set -euo pipefail
cd "$(dirname "$0")/.."
kit=gpu-kit

build() {
    cargo build --release
    # The tests' binaries, by their names.
    local built
    built=$(cargo test --no-run --workspace --message-format=json | python3 -c '
import json, sys
for line in sys.stdin:
    line = json.loads(line)
    if line.get("executable") and line.get("profile", {}).get("test"):
        print(line["target"]["name"], line["target"]["kind"][0], line["package_id"].split("/")[-1].split("#")[0], line["executable"])')
    rm -rf "$kit" && mkdir -p "$kit/bin"
    cp "${CARGO_TARGET_DIR:-target}/release/cloze" "$kit/bin/cloze"
    cp "$(awk '$1 == "cloze_engine" { print $4 }' <<< "$built")" "$kit/bin/engine"
    cp "$(awk '$1 == "all" && $3 == "tasks" { print $4 }' <<< "$built")" "$kit/bin/tasks"
    cp "$(awk '$1 == "all" && $3 == "train" { print $4 }' <<< "$built")" "$kit/bin/train"
    strip "$kit"/bin/*
    pwd > "$kit/bin/root"
    tar -C "$kit" -czf "$kit/kit.tar.gz" bin
    rm -r "$kit/bin"
    ls -l "$kit/kit.tar.gz"
}

unpack() {
    mkdir -p "$out"
    bin=$(mktemp -d)
    trap 'rm -rf "$bin"' EXIT
    tar -C "$bin" -xzf "$kit/kit.tar.gz"
    bin="$bin/bin"
    # The tests' binaries look for their fixtures where they were built.
    local root
    root=$(cat "$bin/root")
    if [ ! -e "$root" ]; then
        mkdir -p "$(dirname "$root")"
        ln -s "$PWD" "$root"
    fi
    export CLOZE_CUDA_SOURCES="$PWD/crates/engine"
    { nvidia-smi || true; "$bin/cloze" bench devices; } | tee "$out/devices.txt"
}

# Runs a command, with its output in a file, and prints one line.
step() {
    local name=$1 limit=$2
    shift 2
    local start=$SECONDS
    if timeout "$limit" "$@" > "$out/$name.txt" 2>&1; then
        echo "ok      $name ($((SECONDS - start)) s)"
    else
        echo "FAILED  $name ($((SECONDS - start)) s): $(grep -m1 -E 'panicked|error|ERROR' "$out/$name.txt" || tail -1 "$out/$name.txt")"
    fi | tee -a "$out/table.txt"
}

check() {
    : > "$out/table.txt"
    step compile 60 "$bin/cloze" bench infer --device cuda --layers 1 --hidden 64 --heads 2 --batch 2 --seq 16 --steps 1
    step start 20 "$bin/cloze" bench infer --device cuda --layers 1 --hidden 64 --heads 2 --batch 2 --seq 16 --steps 1
    step ops 90 "$bin/engine" ops:: cuda:: tape:: gradient
    step parity 90 "$bin/tasks" parity
    step runs 60 "$bin/train" cuda::
    if command -v compute-sanitizer > /dev/null; then
        for tool in memcheck racecheck; do
            step "$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 1 "$bin/cloze" bench train --device cuda --layers 1 --hidden 128 \
                --heads 2 --batch 3 --seq 70 --lengths uniform --steps 1
        done
    fi
}

# One line for each shape: ours, and PyTorch eager and compiled.
speed() {
    : > "$out/table.txt"
    measure() {
        local name=$1 kind=$2
        shift 2
        step "cloze $name" 40 "$bin/cloze" bench "$kind" --device cuda --precision bf16 --steps 10 "$@"
        grep -E "tokens/s" "$out/cloze $name.txt" | tee -a "$out/table.txt" || true
    }
    base=(--layers 12 --hidden 768 --heads 12)
    large=(--layers 24 --hidden 1024 --heads 16)
    measure "base 512x128" train "${base[@]}" --batch 512 --seq 128
    measure "base 128x512" train "${base[@]}" --batch 128 --seq 512
    measure "base 512x128 ragged" train "${base[@]}" --batch 512 --seq 128 --lengths uniform
    measure "base 16x128" train "${base[@]}" --batch 16 --seq 128
    measure "base 32x128" train "${base[@]}" --batch 32 --seq 128
    measure "large 128x128" train "${large[@]}" --batch 128 --seq 128
    measure "infer base 512x128" infer "${base[@]}" --batch 512 --seq 128
    step "profile" 40 "$bin/cloze" bench train --device cuda --precision bf16 --steps 5 --profile "${base[@]}" --batch 512 --seq 128
    for mode in eager compiled; do
        step "pytorch $mode" 120 python3 benches/gpu_peer.py --mode "$mode"
        cat "$out/pytorch $mode.txt" >> "$out/table.txt"
    done
    cat "$out/table.txt"
}

case "${1:-}" in
    build) build ;;
    check | speed)
        out=$(realpath -m "${2:?a folder for the output}")
        unpack
        "$1"
        ;;
    *)
        sed -n '2,11s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
esac
