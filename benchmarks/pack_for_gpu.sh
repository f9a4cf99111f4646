#!/bin/sh
# Packs what a machine with a GPU, torch and transformers but no network lacks for text_gpu.py and image_gpu.py.
#
#   benchmarks/pack_for_gpu.sh gpu.tar.xz            on this machine: Curator and its small dependencies, about 10 MB
#   tar xf gpu.tar.xz && PYTHONPATH=gpu/site python gpu/benchmarks/text_gpu.py scratch          over there
#
# Both machines need the same minor version of Python. More packages can be named after the file (sentence-transformers, ray).
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
out=${1:?name the archive to write}
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$root/tools/uv.sh" build --quiet --all-packages --wheel --out-dir "$work/wheels" --directory "$root"
mkdir -p "$work/gpu/benchmarks" "$work/gpu/tools"
# torch and transformers are there: packages come without their dependencies, which are named.
"$root/tools/uv.sh" pip install --quiet --no-deps --python "$root/.venv/bin/python" --target "$work/gpu/site" "$work"/wheels/*.whl
"$root/tools/uv.sh" pip install --quiet --python "$root/.venv/bin/python" --target "$work/gpu/site" --no-deps \
    pydantic pydantic-core annotated-types typing-inspection simplejpeg cykooz-resizer orjson xxhash ftfy wcwidth cloudpickle "$@"
cp "$root"/benchmarks/text_gpu.py "$root"/benchmarks/image_gpu.py "$root"/benchmarks/make_images.py "$work/gpu/benchmarks/"
cp "$root"/tools/image_models.py "$work/gpu/tools/"
# Modules are compiled here: over there every second counts.
"$root/.venv/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$work/gpu" || true
tar -C "$work" -cJf "$out" gpu
ls -l "$out"
