-- What attempts report. Messages are kept as they came on the wire (protobuf, cnx.proto): one definition,
-- every bit of a figure, and a new field needs no migration. Columns beside them only where SQL looks.

-- The curve. An attempt that resumes tells an epoch again; the newest telling stays.
CREATE TABLE epochs (
    experiment INTEGER NOT NULL REFERENCES experiments (id),
    epoch      INTEGER NOT NULL,                   -- from 1
    attempt    INTEGER NOT NULL,
    top1_error REAL,                               -- test error in per cent, for status; NULL: not a number
    metrics    BLOB    NOT NULL,                   -- EpochMetrics
    PRIMARY KEY (experiment, epoch)
) STRICT, WITHOUT ROWID;

-- The figures of the result tables; told when the attempt has them all.
CREATE TABLE figures (
    experiment INTEGER NOT NULL PRIMARY KEY REFERENCES experiments (id),
    attempt    INTEGER NOT NULL,
    figures    BLOB    NOT NULL                    -- Figures
) STRICT;

-- Files that attempts made, by name below the artifacts URL. The bytes are elsewhere; the hash says which.
-- A row outlives its file: `deleted` says that a newer checkpoint made it superfluous.
CREATE TABLE artifacts (
    name       TEXT    NOT NULL PRIMARY KEY,
    experiment INTEGER NOT NULL REFERENCES experiments (id),
    attempt    INTEGER NOT NULL,
    kind       TEXT    NOT NULL,
    sha256     TEXT    NOT NULL,
    bytes      INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    deleted    INTEGER NOT NULL DEFAULT 0,
    at_ms      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX artifacts_by_experiment ON artifacts (experiment, epoch);

CREATE TABLE logs (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    experiment INTEGER NOT NULL REFERENCES experiments (id),
    attempt    INTEGER NOT NULL,
    at_ms      INTEGER NOT NULL,                   -- by the worker's clock
    text       TEXT    NOT NULL
) STRICT;
CREATE INDEX logs_by_experiment ON logs (experiment, id);
