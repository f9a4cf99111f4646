#!/bin/sh
# imagededup 0.3.3.post2, for a comparison with its hash methods; scikit-image and scikit-learn include photographs.
set -eu
cd "$(dirname -- "$0")"
[ -x envs/imagededup/bin/python ] || ../../tools/uv.sh venv --quiet --python 3.12 envs/imagededup
../../tools/uv.sh pip install --quiet --python envs/imagededup/bin/python "imagededup==0.3.3.post2" "torch==2.15.0" "scikit-image==0.26.0" "scikit-learn==1.9.1"
