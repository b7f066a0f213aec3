"""The tables of the context, as the newest migration leaves them. Times are Unix time in
seconds."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

HEAD = "0002"
"""The newest migration; a database of another version is migrated first, or refused where it is
newer than this code."""
VERSION = "meetara_version"
"""The table that holds a database's version: alembic's own name for it is that of Optuna, whose
studies are beside ours."""

metadata = MetaData()
Ordinal = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only in a column that it calls INTEGER."""


def _job() -> list[Column[str]]:
    return [
        Column("domain", String(80), nullable=False),
        Column("stage", String(200), nullable=False),
        Column("build", String(200), nullable=False),
        Column("machine", String(200), nullable=False),
        Column("hardware", String(200), nullable=False),
    ]


def _report() -> list[Column[str] | Column[float]]:
    return [Column("id", String(64), primary_key=True), Column("time", Double, nullable=False)]


run = Table(
    "run",
    metadata,
    *_report(),
    *_job(),
    Column("outcome", String(20), nullable=False),
    Column("seconds", Double, nullable=False),
    Column("cpu_seconds", Double, nullable=False),
    Column("peak_mb", Double, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("fingerprint", String(200), nullable=False),
    Column("key", String(200), nullable=False),
    Column("usd", Double, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("error", Text),
    Column("code", String(200), nullable=False),
    Index("run_by_domain", "domain", "stage", "time"),
    Index("run_by_time", "time"),
)

sample = Table(
    "sample",
    metadata,
    *_report(),
    *_job(),
    Column("cpu_percent", Double, nullable=False),
    Column("memory_mb", Double, nullable=False),
    Column("available_mb", Double, nullable=False),
    Column("total_mb", Double, nullable=False),
    Column("gpus", JSON, nullable=False),
    Index("sample_by_time", "time"),
)

progress = Table(
    "progress",
    metadata,
    *_report(),
    *_job(),
    Column("step", BigInteger, nullable=False),
    Column("steps", BigInteger, nullable=False),
    Column("loss", Double),
    Column("validation_loss", Double),
    Column("learning_rate", Double),
    Column("tokens_per_second", Double),
    Column("seconds", Double, nullable=False),
    Index("progress_by_domain", "domain", "stage", "time"),
    Index("progress_by_time", "time"),
)

metrics = Table(
    "metrics",
    metadata,
    *_report(),
    Column("domain", String(80), nullable=False),
    Column("sender", String(80), nullable=False),
    Column("stage", String(200), nullable=False),
    Column("values", JSON, nullable=False),
    Index("metrics_by_time", "time"),
)

error = Table(
    "error",
    metadata,
    *_report(),
    Column("domain", String(80), nullable=False),
    Column("stage", String(200), nullable=False),
    Column("sender", String(80), nullable=False),
    Column("message", Text, nullable=False),
    Column("code", String(200), nullable=False),
    Column("signature", String(200), nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("solved", Double),
    Column("solution", Text),
    Column("changes", JSON, nullable=False),
    Index("error_by_domain", "domain", "stage", "solved"),
    Index("error_by_time", "time"),
)

message = Table(
    "message",
    metadata,
    *_report(),
    Column("about", String(20), nullable=False),
    Column("sender", String(80), nullable=False),
    Column("domain", String(80)),
    Column("body", JSON, nullable=False),
    Column("number", BigInteger, nullable=False),
    Index("message_by_number", "number"),
    Index("message_by_kind", "about", "time"),
)

reply = Table(
    "reply",
    metadata,
    *_report(),
    Column("message", String(64), nullable=False),
    Column("sender", String(80), nullable=False),
    Column("answer", String(20), nullable=False),
    Column("reason", Text, nullable=False),
    Index("reply_by_message", "message", "time"),
    Index("reply_by_time", "time"),
)

pattern = Table(
    "pattern",
    metadata,
    *_report(),
    Column("domain", String(80), nullable=False),
    Column("change", Text, nullable=False),
    Column("figure", String(200), nullable=False),
    Column("before", Double, nullable=False),
    Column("after", Double, nullable=False),
    Column("runs", JSON, nullable=False),
    Index("pattern_by_time", "time"),
)

REPORTS = {
    table.name: table for table in (run, sample, progress, metrics, error, message, reply, pattern)
}
"""One table for each kind of report."""

newest = Table(
    "newest",
    metadata,
    Column("kind", String(20), nullable=False),
    Column("domain", String(80), nullable=False),
    Column("stage", String(200), nullable=False),
    Column("time", Double, nullable=False),
    Column("id", String(64), nullable=False),
    PrimaryKeyConstraint("kind", "domain", "stage"),
)
"""The newest report of a kind for each step, so that a section takes as long after a year as after
a day. ``result`` is a run that did not fail."""

total = Table(
    "total",
    metadata,
    Column("domain", String(80), primary_key=True),
    Column("runs", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("cpu_seconds", Double, nullable=False),
    Column("usd", Double, nullable=False),
)
"""What a domain's runs took since the context began; they outlive the runs themselves."""

change = Table(
    "change",
    metadata,
    Column("number", Ordinal, primary_key=True, autoincrement=True),
    Column("time", Double, nullable=False),
    Column("section", String(40), nullable=False),
    Column("domain", String(80), nullable=False),
    sqlite_autoincrement=True,
)
"""Which section changed, for which domain, in the order in which it can be seen: who listens asks
for what is new."""

token = Table(
    "token",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("writes", Boolean, nullable=False),
    Column("created", Double, nullable=False),
)
"""Bearer tokens: only their SHA-256."""
