"""``meetara-build``: a stage run goes its own short way, since a build starts hundreds of them."""

import sys


def main() -> None:
    """Run the command line and exit with its status."""
    if sys.argv[1:2] == ["stage"] and not {"-h", "--help"} & set(sys.argv):
        from meetara_build.faces.stage import main as stage

        sys.exit(stage(sys.argv[2:]))
    from meetara_build.faces.cli import main as cli

    sys.exit(cli())


if __name__ == "__main__":
    main()
