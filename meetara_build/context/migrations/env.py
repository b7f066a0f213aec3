"""What alembic runs to migrate: on the connection, and within the transaction, that the store hands it."""

from alembic import context

from meetara_build.context.tables import VERSION, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    version_table=VERSION,
)
with context.begin_transaction():
    context.run_migrations()
