"""The context over MCP: what other programs and assistants may read, call and ask for.

::

    resources   meetara://SECTION, meetara://SECTION/{domain}
    reading     similar_domains get_plan read_history read_messages                          tools that change nothing
    writing     report_metrics report_error propose send_message answer report               tools that report
    prompts     review_plan why_failed
"""

from meetara_build.errors import needs

with needs("serve"):
    import mcp  # noqa: F401
    import uvicorn  # noqa: F401
