#!/usr/bin/env bash
# Runs every example that needs nothing but the light install, and says where its results are. See README.md here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

shown=()
for pipeline in examples/*/pipeline.yaml; do
    [ -e "$pipeline" ] || continue
    folder=$(dirname "$pipeline")
    [ -e "$folder/needs-extras" ] && continue
    name=$(basename "$folder")
    # From the start each time: a finished run would otherwise be resumed, and do nothing.
    rm -rf "runs/demo/$name" "$folder/out"
    printf '\n== %s: %s\n' "$name" "$(sed -n 's/^# //p;/^#/!q' "$pipeline" | head -n 1)"
    if [ -e "$folder/make_data.py" ] && [ ! -e "$folder/made" ]; then
        python "$folder/make_data.py" "$folder/made.partial"
        mv "$folder/made.partial" "$folder/made"
    fi
    curate run "$pipeline" --run-dir "runs/demo/$name"
    shown+=("  $name: report runs/demo/$name/report.html, results $folder/out/, pipeline $pipeline")
done

if [ ${#shown[@]} -eq 0 ]; then
    echo "error: no example to run: there is no examples/*/pipeline.yaml" >&2
    exit 1
fi
printf '\nWhere to look:\n'
printf '%s\n' "${shown[@]}"
printf 'Next: change a number in a pipeline file and run  make demo  again.\n'
