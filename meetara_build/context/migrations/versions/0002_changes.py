"""What was changed until an error was solved, as values: programs need not read the sentence."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Errors solved before have none."""
    op.add_column("error", sa.Column("changes", sa.JSON, nullable=False, server_default="[]"))
    with op.batch_alter_table("error") as table:
        table.alter_column("changes", server_default=None)
