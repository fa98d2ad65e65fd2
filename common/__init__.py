"""What the four papers share: layers, data, curvature, selection, costs, records. Knows no paper's
algorithm.

`from common import prune, compare, to_onnx` is the way in for a network of one's own; each is
looked up when it is asked for, so that `import common` loads nothing.
"""

import importlib

_OWN = {
    "prune": "common.commands.own",
    "compare": "common.commands.own",
    "to_onnx": "common.commands.export",
}


def __getattr__(name: str):
    if name in _OWN:
        return getattr(importlib.import_module(_OWN[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
