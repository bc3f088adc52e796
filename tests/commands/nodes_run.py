"""Runs commands one after another, as a script on each of several nodes; the second node comes late."""

import json
import os
import sys
import time

from lcg_lightning.cli import main

if __name__ == "__main__":
    for arguments in json.loads(sys.argv[1]):
        time.sleep(int(os.environ.get("RANK", "0")))
        assert main(arguments) == 0, arguments
