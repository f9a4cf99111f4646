"""Measures which copies imagededup's hashes find, by kind of change.

    sh benchmarks/peers/imagededup.sh
    benchmarks/peers/envs/imagededup/bin/python benchmarks/peers/imagededup_kinds.py FOLDER SCRATCH --method PHash

FOLDER contains the output of make_image_copies.py. The script uses the default radius of the method (10 of 64 bits),
one process, and the search that its documentation shows first (`find_duplicates`). imagededup reads files, so the tars
are unpacked before the clock starts. It writes nothing, and does not search for mirrored copies.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tarfile
import time
from pathlib import Path

import imagededup.methods

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from image_dedup import judged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--method", choices=["PHash", "DHash", "AHash", "WHash"], default="PHash")
    options = parser.parse_args()
    files = options.scratch / "files"
    shutil.rmtree(files, ignore_errors=True)
    for path in sorted(options.folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            tar.extractall(files, filter="data")
    start = time.perf_counter()
    method = getattr(imagededup.methods, options.method)(verbose=False)
    hashes = method.encode_images(image_dir=str(files), num_enc_workers=0)
    found = method.find_duplicates(encoding_map=hashes, num_dist_workers=0)
    seconds = time.perf_counter() - start
    pairs = [(Path(one).stem, Path(other).stem) for one, others in found.items() for other in others]
    print("BENCH", json.dumps({"pipeline_s": round(seconds, 1), **judged(options.folder, pairs)}))


if __name__ == "__main__":
    main()
