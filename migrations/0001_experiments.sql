-- What people submit, and where each experiment stands. Start reading here; 0002 is how they are run,
-- 0003 what came of it.
--
-- Times are Unix milliseconds. Names of states and failure classes are those of cnx.proto, in lower case.

-- AUTOINCREMENT: an ID that was ever shown to somebody never means another experiment.
CREATE TABLE experiments (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    name            TEXT    NOT NULL,
    spec_json       TEXT    NOT NULL,            -- canonical JSON of the spec; never changes
    spec_hash       TEXT    NOT NULL,            -- equal for experiments that would compute the same figures
    needs_gpu       INTEGER NOT NULL,            -- from the spec, for the queue's index
    max_attempts    INTEGER NOT NULL,            -- from the spec
    retry_of        INTEGER REFERENCES experiments (id),
    submitted_at_ms INTEGER NOT NULL,
    state           TEXT    NOT NULL DEFAULT 'queued'
                    CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    attempt         INTEGER NOT NULL DEFAULT 0,  -- newest attempt; 0 before the first
    tries           INTEGER NOT NULL DEFAULT 0,  -- attempts that failed and counted against max_attempts
    cancelling      INTEGER NOT NULL DEFAULT 0,  -- cancelled by a person while it runs; the worker has yet to confirm
    not_before_ms   INTEGER NOT NULL DEFAULT 0,  -- back-off while queued; 0: none
    failure         TEXT,                        -- class of the last failure, while queued again or failed
    message         TEXT,
    started_at_ms   INTEGER,                     -- first lease
    finished_at_ms  INTEGER
) STRICT;

CREATE INDEX experiments_by_hash ON experiments (spec_hash);
CREATE INDEX experiments_by_name ON experiments (name);
-- The queue, first in first out; partial, so that it stays as small as what waits.
CREATE INDEX experiments_queue ON experiments (needs_gpu, id) WHERE state = 'queued';
CREATE INDEX experiments_backoff ON experiments (not_before_ms) WHERE state = 'queued' AND not_before_ms > 0;
CREATE INDEX experiments_running ON experiments (id) WHERE state = 'running';

-- How many experiments are in each state, kept by triggers: every status call tells it, and counting a
-- million rows each time would show.
CREATE TABLE state_counts (
    state TEXT    NOT NULL PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO state_counts (state, count)
VALUES ('queued', 0), ('running', 0), ('succeeded', 0), ('failed', 0), ('cancelled', 0);

CREATE TRIGGER experiments_count_new AFTER INSERT ON experiments BEGIN
    UPDATE state_counts SET count = count + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER experiments_count_moved AFTER UPDATE OF state ON experiments WHEN OLD.state <> NEW.state BEGIN
    UPDATE state_counts SET count = count - 1 WHERE state = OLD.state;
    UPDATE state_counts SET count = count + 1 WHERE state = NEW.state;
END;

-- A final state is never left: the lifecycle refuses it, and so does the database.
CREATE TRIGGER experiments_final_stays AFTER UPDATE OF state ON experiments
WHEN OLD.state IN ('succeeded', 'failed', 'cancelled') AND NEW.state <> OLD.state BEGIN
    SELECT RAISE (ABORT, 'a final experiment cannot change its state');
END;

-- A sweep is a named set of experiments. Submitting it again links what is there already, so one experiment
-- may belong to several.
CREATE TABLE sweeps (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT    NOT NULL UNIQUE,
    created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE sweep_members (
    sweep      INTEGER NOT NULL REFERENCES sweeps (id),
    experiment INTEGER NOT NULL REFERENCES experiments (id),
    PRIMARY KEY (sweep, experiment)
) STRICT, WITHOUT ROWID;
CREATE INDEX sweep_members_by_experiment ON sweep_members (experiment);

-- The story of an experiment. Each row is written in the transaction that it tells of.
CREATE TABLE events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    experiment INTEGER NOT NULL REFERENCES experiments (id),
    attempt    INTEGER NOT NULL,
    at_ms      INTEGER NOT NULL,
    what       TEXT    NOT NULL                  -- one sentence
) STRICT;
CREATE INDEX events_by_experiment ON events (experiment, id);
