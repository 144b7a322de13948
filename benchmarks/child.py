"""`python -m benchmarks.child module:function` with keyword arguments as JSON on standard input."""

import importlib
import json
import sys


def main() -> None:
    """Call the function and print its answer."""
    module, _, name = sys.argv[1].partition(":")
    answer = getattr(importlib.import_module(module), name)(**json.load(sys.stdin))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
