#!/usr/bin/env bash
#@ sbatch
# Runs a bundle of stformer on a chip and compares every spike with the bundle's.
#
#     bash SCRIPT [--dry-run] [RESULTS]
#
# --dry-run prints what would be run. A step that is done is not repeated: run the script again
# with the same folder RESULTS to go on after an interruption.
# Exit codes: 0 every spike is equal; 1 spikes differ, or the network does not fit; 2 something
# is wrong with the bundle, the site or the script; 3 something is not installed; 124 too slow.
set -euo pipefail

#@ settings

DRY=
if [ "${1:-}" = --dry-run ]; then
    DRY=1
    shift
fi
if [ "$#" -gt 1 ] || [[ "${1:-}" == -* ]]; then
    echo "usage: bash SCRIPT [--dry-run] [RESULTS]" >&2
    exit 2
fi
OUT=${1:-results-$NAME}

say() { printf '\n== %s\n' "$*"; }

# shown COMMAND...: the command, as it could be typed.
shown() { printf '   $'; printf ' %q' "$@"; printf '\n'; }

# step NAME COMMAND...: once, with its output in RESULTS/NAME.json and its messages in
# RESULTS/NAME.log; its exit code is the step's.
step() {
    local name=$1 code=0
    shift
    if [ -e "$OUT/$name.done" ]; then
        echo "   $name was done before"
        return "$(cat "$OUT/$name.done")"
    fi
    shown "$@"
    [ -z "$DRY" ] || return 0
    "$@" >"$OUT/$name.json" 2> >(tee "$OUT/$name.log" >&2) || code=$?
    [ "$code" -gt 1 ] || echo "$code" >"$OUT/$name.done" # 0 and 1 are answers, others are not
    return "$code"
}

if [ -z "$DRY" ]; then
    # Not 1: that would read as "the spikes differ".
    mkdir -p "$OUT" && [ -w "$OUT" ] || { echo "$OUT: cannot be written" >&2 && exit 2; }
fi

say "1 environment"
[ -n "$DRY" ] || command -v stformer >/dev/null || { echo "stformer is not installed on this machine" >&2 && exit 3; }
if [ -z "$DRY" ]; then
    {
        date -u +%Y-%m-%dT%H:%M:%SZ
        uname -a
        python -m pip freeze 2>/dev/null || true
        env | grep -E '^(SLURM|NOSLURM|LOIHI_GEN|PARTITION|BOARD|NXSDKHOST|HOST_BINARY|NXOPTIONS|LMTOPTIONS)=' || true
    } >"$OUT/environment.txt"
fi
if [ "$BACKEND" = loihi2 ] && [ "$HOST" = slurm ]; then
    [ -n "$DRY" ] || command -v sinfo >/dev/null || { echo "sinfo is not here: is this the login machine?" >&2 && exit 3; }
    step boards sinfo -N
fi
step backend stformer targets "$BACKEND" --json

say "2 bundle"
step bundle stformer deploy "$BUNDLE" --check --seal "$SEAL" --json

say "3 feasibility"
step map stformer map "$BUNDLE/network.stf" --hardware "$BUNDLE/hardware.toml" --json

say "4 on this machine's CPU"
MODEL=("$BUNDLE/network.stf" --data "$BUNDLE/samples.npz")
step cpu-run stformer run "${MODEL[@]}" --backend lava-sim -o "$OUT/cpu.trace" --json
step cpu stformer verify "${MODEL[0]}" --traces "$BUNDLE/golden.trace" "$OUT/cpu.trace" --json

say "5 on $BACKEND"
step chip-run timeout "$TIMEOUT" \
    stformer run "${MODEL[@]}" --backend "$BACKEND" -o "$OUT/chip.trace" --json
equal=0
step chip stformer verify "${MODEL[0]}" --traces "$BUNDLE/golden.trace" "$OUT/chip.trace" \
    --report "$OUT/report.html" --json || equal=$?
[ "$equal" -le 1 ] || exit "$equal"

say "6 measurements, one run each"
if [ "$equal" = 1 ]; then
    echo "   none: the spikes differ, so figures would be another network's"
elif [ "$BACKEND" != loihi2 ]; then
    echo "   none: $BACKEND has no probes"
else
    for measure in "${MEASURES[@]}"; do
        step "$measure" timeout "$TIMEOUT" \
            stformer run "${MODEL[@]}" --backend "$BACKEND" --measure "$measure" --json
    done
fi

say "7 report"
if [ -n "$DRY" ]; then
    echo "   would be $OUT/report.html"
elif [ "$equal" = 0 ]; then
    echo "   every spike is equal: $OUT/report.html"
else
    echo "   spikes differ: $OUT/report.html"
fi
exit "$equal"
