"""What servers over HTTP have in common: where they listen, for whom, and how long."""

from meetara_build.errors import needs

with needs("serve"):
    import anyio  # noqa: F401
    import uvicorn  # noqa: F401
