"""Every figure that needs no data of one's own: ``python -m bench``; see the other modules for the
rest."""

import subprocess
import sys

if __name__ == "__main__":
    for name in (
        "startup",
        "real_base",
        "rounding",
        "architectures",
        "build",
        "incremental",
        "estimates",
        "figures",
    ):
        subprocess.run([sys.executable, "-m", f"bench.{name}"], check=True)
