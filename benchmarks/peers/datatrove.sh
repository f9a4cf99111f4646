#!/bin/sh
# datatrove 0.10.1 with spaCy, its default word tokenizer. Babel provides the CLDR names for the parity corpus.
set -eu
cd "$(dirname -- "$0")"
[ -x envs/datatrove/bin/python ] || ../../tools/uv.sh venv --quiet --python 3.12 envs/datatrove
../../tools/uv.sh pip install --quiet --python envs/datatrove/bin/python \
    "datatrove[processing]==0.10.1" "spacy==3.8.18" "babel==2.18.0" "pyarrow>=20"
