#!/bin/sh
# Data-Juicer 1.6.1. It imports aiohttp without declaring it, and its MinHash needs scipy.
set -eu
cd "$(dirname -- "$0")"
[ -x envs/datajuicer/bin/python ] || ../../tools/uv.sh venv --quiet --python 3.12 envs/datajuicer
../../tools/uv.sh pip install --quiet --python envs/datajuicer/bin/python "py-data-juicer==1.6.1" aiohttp scipy
