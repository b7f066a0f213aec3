"""Use what builds learn: one shared context."""

from meetara_build.cli.group import make_group

app = make_group(__name__, ["show", "serve", "export", "import", "token"], help=__doc__)
