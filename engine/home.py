"""Where this machine keeps what outlives a run: models that are known by name, data sets, tasks of the service.

LABELENGINE_HOME names the folder, ~/.labelengine by default. Nothing is made before something is kept there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

HOME_VARIABLE: Final = "LABELENGINE_HOME"


def home_folder(given: Path | None = None) -> Path:
    """The folder: the one given, else by the environment, else ~/.labelengine."""
    if given is not None:
        return given
    told = os.environ.get(HOME_VARIABLE)
    return Path(told) if told else Path.home() / ".labelengine"
