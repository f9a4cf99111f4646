"""Makes the pages of `examples/dedup` in a folder: ``python make_data.py FOLDER``."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).resolve().parent.parent / "dedup" / "make_data.py"), run_name="__main__")
