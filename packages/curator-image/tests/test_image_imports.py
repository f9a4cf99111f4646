"""A run of image stages does not import pandas, which would take each process a sixth of a second."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image


@pytest.mark.slow
def test_reading_measuring_and_writing_images_load_no_pandas(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    out = io.BytesIO()
    Image.effect_noise((64, 48), 80).convert("RGB").save(out, "JPEG")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        members = {"jpg": out.getvalue(), "txt": b"a caption", "json": b'{"n": 1}', "npy": b"x"}
        for name, data in [(f"{at}.{ext}", data) for at in range(6) for ext, data in members.items()] + [
            ("7.jpg", b"bad")
        ]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    code = (
        "import sys\n"
        "from curator_core import Pipeline\n"
        "from curator_image import *\n"
        f"stages = [ImageReader({str(tmp_path / 's.tar')!r}, json_fields={{'n': 'int'}}, size=32, images_per_batch=4),\n"
        "    ResolutionFilter(min_width=10, max_width=1000), AspectRatioFilter(), BytesPerPixelFilter(max_bytes=9.0),\n"
        "    FormatFilter(), BlurFilter(score_column='sharp'), EntropyFilter(), BrightnessFilter(), ContrastFilter(),\n"
        "    UniformFilter(), ColorfulnessFilter(min_colorfulness=0.0, max_colorfulness=0.5),\n"
        "    BorderFilter(), CaptionLengthFilter(min_chars=2),\n"
        f"    CaptionDuplicateFilter(max_count=3), CaptionToText(), ImageWriter(path={str(tmp_path / 'out')!r})]\n"
        "summary = Pipeline(stages).run().summary\n"
        "print(summary.rows_dropped, [name for name in sys.modules if name == 'pandas'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("[]"), done.stdout
