"""``meetara-build``: a stage run goes its own short way, since a build starts hundreds of them."""

import os
import sys

from meetara_build.outside import write_any_text


def main() -> None:
    """Run the command line and exit with its status."""
    write_any_text()
    os.environ["PYTHONIOENCODING"] = (
        "utf-8"  # of the processes that we start, whose logs are read as that
    )
    try:
        if sys.argv[1:2] == ["stage"]:
            from meetara_build.cli.stage import stage

            sys.exit(stage(sys.argv[2:]))
        from meetara_build.cli.app import main as cli

        sys.exit(cli())
    except KeyboardInterrupt:  # during the imports
        sys.exit(130)


if __name__ == "__main__":
    main()
