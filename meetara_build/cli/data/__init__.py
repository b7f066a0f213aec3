"""Look at data sets."""

from meetara_build.cli.group import make_group

app = make_group(__name__, ["check"], help=__doc__)
