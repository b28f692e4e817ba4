-- Who runs what. An attempt is one lease of one experiment by one worker; its row is committed before the
-- worker hears of it, so that a coordinator that dies in between still knows whom to believe.
CREATE TABLE attempts (
    experiment       INTEGER NOT NULL REFERENCES experiments (id),
    attempt          INTEGER NOT NULL,             -- from 1 within the experiment
    token            TEXT    NOT NULL,             -- random; whatever a worker says must name it (fencing)
    worker           TEXT    NOT NULL,
    started_at_ms    INTEGER NOT NULL,
    ended_at_ms      INTEGER,                      -- NULL: it runs
    outcome          TEXT    NOT NULL DEFAULT 'running', -- or succeeded, cancelled, or the failure class
    message          TEXT,
    environment      BLOB,                         -- Environment of cnx.proto, encoded; NULL until it reported one
    resumed_at_epoch INTEGER NOT NULL DEFAULT 0,   -- 0: from the start
    resumed_from     TEXT,                         -- artifact name of that checkpoint
    last_sequence    INTEGER NOT NULL DEFAULT 0,   -- newest report applied: one sent again is acknowledged, not repeated
    PRIMARY KEY (experiment, attempt)
) STRICT, WITHOUT ROWID;

-- One running attempt an experiment, whatever the code above does. Also how a restart finds the leases.
CREATE UNIQUE INDEX attempts_running ON attempts (experiment) WHERE ended_at_ms IS NULL;

-- Workers that ever attached. Whether one is connected now is known in memory only.
CREATE TABLE workers (
    name          TEXT    NOT NULL PRIMARY KEY,
    host          TEXT    NOT NULL,
    device        TEXT    NOT NULL,
    slots         INTEGER NOT NULL,
    version       TEXT    NOT NULL,
    first_seen_ms INTEGER NOT NULL,
    last_seen_ms  INTEGER NOT NULL                 -- of its last attaching or leaving
) STRICT, WITHOUT ROWID;
