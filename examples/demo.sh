#!/usr/bin/env bash
# Runs the named examples, or all that need only the light installation, and says where the results are. See
# README.md here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

shown=()
if [ $# -gt 0 ]; then folders=("${@/#/examples/}"); else folders=(examples/*/); fi
for folder in "${folders[@]}"; do
    folder=${folder%/}
    pipeline=$folder/pipeline.yaml
    [ -e "$pipeline" ] || continue
    [ -e "$folder/needs-extras" ] && continue
    name=$(basename "$folder")
    # Start from scratch each time: otherwise a finished run would be resumed and do nothing.
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
printf 'Next: change a number in a pipeline file and run  make demo  again; or see all of  examples/  with  make examples\n'
