"""The first tables: a new database gets those of ``tables`` whole, and the number of the newest migration."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Nothing came before."""
