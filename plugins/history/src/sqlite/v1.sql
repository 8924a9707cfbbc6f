-- Format 1. A change of this file is a new format: add `v2.sql` with what leads from 1 to 2.

-- What the file is. `store` names it for ever; `pipeline` is whose history it is.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Where the line stands: one row, changed only by compare-and-set on (epoch, position). Sums since the beginning.
CREATE TABLE line (
    only_one     INTEGER PRIMARY KEY CHECK (only_one = 1),
    epoch        INTEGER NOT NULL,
    position     TEXT,
    records      INTEGER NOT NULL DEFAULT 0,
    changes      INTEGER NOT NULL DEFAULT 0,
    duplicates   INTEGER NOT NULL DEFAULT 0,
    control      INTEGER NOT NULL DEFAULT 0,
    transactions INTEGER NOT NULL DEFAULT 0,
    CHECK (records = changes + duplicates + control)
) STRICT;
INSERT INTO line (only_one, epoch) VALUES (1, 0);

-- A table's counters since the beginning (they stay when the table goes) and what was last proved of it.
CREATE TABLE tables (
    id                INTEGER PRIMARY KEY,
    schema_name       TEXT NOT NULL,
    table_name        TEXT NOT NULL,
    gone              INTEGER NOT NULL DEFAULT 0,
    reads             INTEGER NOT NULL DEFAULT 0,
    inserts           INTEGER NOT NULL DEFAULT 0,
    updates           INTEGER NOT NULL DEFAULT 0,
    deletes           INTEGER NOT NULL DEFAULT 0,
    truncates         INTEGER NOT NULL DEFAULT 0,
    verified_position TEXT,
    verified_micros   INTEGER,
    verified_rows     INTEGER,
    UNIQUE (schema_name, table_name)
) STRICT;

-- The newest changes. `id` is the change's number since the beginning. No cell value: the key only as a keyed hash.
CREATE TABLE events (
    id            INTEGER PRIMARY KEY,
    table_id      INTEGER NOT NULL,
    op            INTEGER NOT NULL,
    commit_micros INTEGER NOT NULL,
    txn           TEXT NOT NULL,
    ordinal       INTEGER NOT NULL,
    trace_id      BLOB NOT NULL,
    key_hash      TEXT NOT NULL
) STRICT;

-- Differences. Open: `resolved_micros` is null. One that comes back after it was resolved is a new finding.
CREATE TABLE findings (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    table_id         INTEGER NOT NULL,
    identity         TEXT NOT NULL,
    verdict          TEXT NOT NULL,
    finding          TEXT NOT NULL,
    found_micros     INTEGER NOT NULL,
    last_seen_micros INTEGER NOT NULL,
    resolved_micros  INTEGER
) STRICT;
CREATE UNIQUE INDEX findings_open ON findings (identity) WHERE resolved_micros IS NULL;
CREATE INDEX findings_by_table ON findings (table_id, id);
CREATE INDEX findings_resolved ON findings (id) WHERE resolved_micros IS NOT NULL;
