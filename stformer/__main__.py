"""`python -m stformer`."""

import os
import sys

from stformer.cli import main

if __name__ == "__main__":
    code = main()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # One of torchrun's processes: gloo's threads are not joined (`training.processes.joined`),
        # and ending the interpreter under them aborts now and then. All is written and said.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)
