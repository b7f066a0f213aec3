"""The dataset stage: sources → train, validation and test records, with a card that counts them and an account of every one.

::

    sources    files and hub data sets → rows            (text_files, json_files, csv_files, tables)
    shape      rows → conversations, whatever their form (columns: which is what; turns: chats and what stands in them)
    clean      ftfy, Unicode NFC, language tag
    check      pandera: every bad record with file, line and column, in one table
    duplicates exact and near-duplicates dropped, kin grouped
    split      by content hash, a group at a time
    tokens     length limits in the base's tokens
"""

from meetara_build.stages.dataset.prepare import Prepared, check_sources, prepare
from meetara_build.stages.dataset.records import Drop, Fault, Record
from meetara_build.stages.dataset.stage import run, warm

__all__ = ["Drop", "Fault", "Prepared", "Record", "check_sources", "prepare", "run", "warm"]
