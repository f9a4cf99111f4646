#!/bin/sh
# NeMo Curator 1.4.0 with its CPU text extra: the pure-Python filters need nothing else. Its fastText filters import
# fasttext.
set -eu
cd "$(dirname -- "$0")"
[ -x envs/nemo/bin/python ] || ../../tools/uv.sh venv --quiet --python 3.12 envs/nemo
../../tools/uv.sh pip install --quiet --python envs/nemo/bin/python "nemo-curator[text_cpu]==1.4.0"
