#!/bin/sh
# datasketch 2.0.0, with libraries to read and write the files.
set -eu
cd "$(dirname -- "$0")"
[ -x envs/datasketch/bin/python ] || ../../tools/uv.sh venv --quiet --python 3.12 envs/datasketch
../../tools/uv.sh pip install --quiet --python envs/datasketch/bin/python "datasketch==2.0.0" "orjson>=3.10" "pyarrow>=20"
