"""What builds learn, in one place that people, agents and other programs read and write.

::

    a job ── appends ──► outbox        a file below the root: no job waits for a database, or fails because of one
                           │
                        delivery       whoever looks at the context takes it in; a courier, where the context is elsewhere
                           │
    an agent ── reports ──► store      SQLite below the root, or PostgreSQL; every report once, however often it is delivered
                           │
                        lessons        which change of a recipe helped, what solved an error
                           │
                        sections       resource_status · quality_metrics · training_state · knowledge_base
"""
