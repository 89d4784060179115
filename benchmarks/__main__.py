"""`python -m benchmarks` is `./course bench`."""

import sys

from utils.__main__ import main

if __name__ == "__main__":
    main(["bench", *sys.argv[1:]], prog_name="python -m utils")
