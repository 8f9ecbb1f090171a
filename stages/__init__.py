"""The stages of the pipeline: each reads files, calls the library, writes files.

They run as `python -m stages.<name>` and import the package from their own working copy: with an installed package, a
queued or temporary experiment would run the workspace's code instead of its own.
"""

import sys
import time
from pathlib import Path

STARTED = time.monotonic()  # before anything large is imported

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
