"""Every figure of the context: ``python -m bench.context``."""

import subprocess
import sys

if __name__ == "__main__":
    for name in ("load", "cost", "year", "fuzz", "kills"):
        subprocess.run([sys.executable, "-m", f"bench.context.{name}"], check=True)
