"""The dataset stage: sources → train, validation and test records, with a card that counts them and
an account of every one.

::

    sources    files and hub data sets → rows            (text_files, json_files, csv_files, tables)
    shape      rows → conversations, whatever their form (columns: which is what; turns: chats and what stands in them)
    check      record_schema, declared with pandera: every bad record with file, line and column, in one table
    clean      garbled text mended, Unicode NFC, language tag (HTML as text in markup)
    duplicates exact and near-duplicates dropped, kin grouped
    split      by content hash, a group at a time
    limits     length limits in the base's tokens (measured in tokens), records left out by name, losses refused
    examine    the same without writing, for those who want to know before
"""

from meetara_build.stages.dataset.examine import Examined, examine
from meetara_build.stages.dataset.prepare import Prepared, find_taught, prepare, read_all
from meetara_build.stages.dataset.records import Drop, Fault, Record
from meetara_build.stages.dataset.stage import run, warm

__all__ = [
    "Drop",
    "Examined",
    "Fault",
    "Prepared",
    "Record",
    "examine",
    "find_taught",
    "prepare",
    "read_all",
    "run",
    "warm",
]
