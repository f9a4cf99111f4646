"""Makes the tars of the example `images-basic`, which this example also reads.

python make_data.py FOLDER
"""

from __future__ import annotations

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parent.parent / "images-basic" / "make_data.py"), run_name="__main__")
