"""What the libraries below us would report to their makers, declared and switched off in this one
place.

`import tasteloop` does it, so it holds in every process that runs our code (command, step, server,
worker, test, benchmark), before a library can be imported; processes that those start inherit the
variables.
"""

from __future__ import annotations

import os
import sys

VARIABLES = {  # who sets one otherwise has decided otherwise
    "DO_NOT_TRACK": "1",  # Evidently, Hugging Face
    "GX_ANALYTICS_ENABLED": "false",
    # ONNX Runtime reports to its maker and keeps a device id since its 1.32
    "ORT_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
# OpenVINO reports each import to Google Analytics through this module, which knows no variable but
# CI's. Where the module cannot be imported OpenVINO goes on with a stub of its own that does
# nothing.
MODULES = ("openvino_telemetry",)


def opt_out() -> None:
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    for module in MODULES:
        sys.modules.setdefault(module, None)  # type: ignore[arg-type]  # None: `import` raises ImportError
