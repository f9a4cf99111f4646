#!/bin/sh
# Packs everything that text_gpu.py and image_gpu.py need on a machine that has a GPU, torch and transformers, but no
# network.
#
#   benchmarks/pack_for_gpu.sh gpu.tar.xz            on this machine: Curator and its small dependencies, about 10 MB
#   tar xf gpu.tar.xz && PYTHONPATH=gpu/site python gpu/benchmarks/image_gpu.py scratch         over there
#
# Both machines need the same minor version of Python. List optional packages after the file: `ray` (50 MB more) and
# `dali` (180 MB more) for the parts of image_gpu.py with these names, `tables` if pyarrow, pandas and Pillow are
# missing on the other machine, sentence-transformers for a part of text_gpu.py, or any other package. A part whose
# package is missing is left out. With `ray`, the archive is smaller than 64 MB. To send a larger one in pieces, run
# `split -b 60M gpu.tar.xz gpu.part.` here, and `cat gpu.part.* | tar xJ` over there.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
out=${1:?name the archive to write}
shift
more=
for name in "$@"; do
    case $name in
        ray)
            more="$more ray msgpack protobuf jsonschema jsonschema-specifications referencing rpds-py attrs filelock"
            more="$more requests urllib3 certifi charset-normalizer idna"
            ;;
        tables) more="$more pyarrow pandas python-dateutil six pillow" ;;
        dali)
            more="$more nvidia-dali-cuda130 nvidia-nvimgcodec-cu13 nvidia-libnvcomp-cu13 nvidia-nvjpeg nvidia-nvjpeg2k-cu13"
            more="$more nvidia-nvtiff-cu13 optree nvtx makefun libcst astunparse gast six"
            ;;
        *) more="$more $name" ;;
    esac
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$root/tools/uv.sh" build --quiet --all-packages --wheel --out-dir "$work/wheels" --directory "$root"
mkdir -p "$work/gpu/benchmarks" "$work/gpu/tools"
# torch and transformers are on the other machine, so packages are installed without dependencies, and the needed ones
# are listed, in the versions installed here. Files are copied and not linked, because tar fails if another environment
# links a file while tar reads it.
"$root/tools/uv.sh" pip freeze --python "$root/.venv/bin/python" | grep -E '^[A-Za-z0-9._-]+==' >"$work/here.txt"
"$root/tools/uv.sh" pip install --quiet --link-mode copy --no-deps --python "$root/.venv/bin/python" --target "$work/gpu/site" "$work"/wheels/*.whl
"$root/tools/uv.sh" pip install --quiet --link-mode copy --python "$root/.venv/bin/python" --target "$work/gpu/site" --no-deps -c "$work/here.txt" \
    pydantic pydantic-core annotated-types typing-inspection simplejpeg cykooz-resizer orjson xxhash ftfy wcwidth cloudpickle $more
rm -rf "$work/gpu/site/ray/jars" "$work/gpu/site/ray/rllib"
for script in text_gpu image_gpu gpu_parts make_images; do cp "$root/benchmarks/$script.py" "$work/gpu/benchmarks/"; done
cp "$root"/tools/image_models.py "$work/gpu/tools/"
# Modules are compiled here, because every second counts on the other machine.
"$root/.venv/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$work/gpu" || true
tar -C "$work" -cJf "$out" gpu
ls -l "$out"
