-- What the queue goes by: pauses, priorities, fair shares, dependencies, and what a worker must have.

-- A paused experiment is a queued one that is held back: its row says 'queued' and paused = 1, so that every index of
-- what waits stays small and the check on `state` stays as it is. On the wire and on screen it is a state of its own.
ALTER TABLE experiments ADD COLUMN paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1));
-- Of a running one: what becomes of it once its worker confirms that it stopped (cancelling wins over either).
-- pause: it is paused. yield: it goes back to the queue; its slot was wanted.
ALTER TABLE experiments ADD COLUMN stopping TEXT CHECK (stopping IN ('pause', 'yield'));
ALTER TABLE experiments ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;   -- higher goes first
ALTER TABLE experiments ADD COLUMN preempts INTEGER NOT NULL DEFAULT 0;   -- may take the slot of a lower priority
-- Whose turn it is among equals: the sweep it was submitted with; all others share 0.
ALTER TABLE experiments ADD COLUMN share INTEGER NOT NULL DEFAULT 0;
-- Dependencies that have not succeeded yet; above 0 it is not ready.
ALTER TABLE experiments ADD COLUMN waits_for INTEGER NOT NULL DEFAULT 0;
-- Whether another one ever depended on it: saves a look into `dependencies` at every end.
ALTER TABLE experiments ADD COLUMN needed INTEGER NOT NULL DEFAULT 0;
-- The worker on which its last attempt failed: another is preferred.
ALTER TABLE experiments ADD COLUMN avoid TEXT;
ALTER TABLE experiments ADD COLUMN demand INTEGER NOT NULL DEFAULT 0;

-- What a worker must have, each combination once: the dispatcher asks for the ready experiments of those demands that a
-- free worker meets, and what nobody can run now costs nothing.
CREATE TABLE demands (
    id         INTEGER PRIMARY KEY,
    gpus       INTEGER NOT NULL,
    memory_gib INTEGER NOT NULL,
    labels     TEXT    NOT NULL,                 -- sorted, separated by spaces
    UNIQUE (gpus, memory_gib, labels)
) STRICT;
INSERT INTO demands (id, gpus, memory_gib, labels) VALUES (0, 0, 0, ''), (1, 1, 0, '');
UPDATE experiments SET demand = 1 WHERE needs_gpu;
UPDATE experiments SET share = coalesce((SELECT min(sweep) FROM sweep_members WHERE experiment = experiments.id), 0)
WHERE state = 'queued';

-- Each index in the order in which it is asked, and only of what is ready: as small as what waits.
DROP INDEX experiments_queue;
CREATE INDEX experiments_ready ON experiments (demand, priority DESC, share, id, not_before_ms)
WHERE state = 'queued' AND paused = 0 AND waits_for = 0;
CREATE INDEX experiments_preempting ON experiments (priority DESC, id)
WHERE state = 'queued' AND paused = 0 AND waits_for = 0 AND preempts = 1;
CREATE INDEX experiments_failed ON experiments (id) WHERE state = 'failed';

-- Who runs only after whom succeeded. A new experiment can name older ones only, so there are no cycles.
CREATE TABLE dependencies (
    experiment INTEGER NOT NULL REFERENCES experiments (id),
    needs      INTEGER NOT NULL REFERENCES experiments (id),
    PRIMARY KEY (experiment, needs),
    CHECK (needs < experiment)
) STRICT, WITHOUT ROWID;
CREATE INDEX dependencies_by_needs ON dependencies (needs, experiment);

-- The queue as a whole, one row.
CREATE TABLE queue (
    only_row     INTEGER PRIMARY KEY CHECK (only_row = 1),
    paused_at_ms INTEGER                         -- NULL: it dispatches
) STRICT;
INSERT INTO queue (only_row, paused_at_ms) VALUES (1, NULL);

ALTER TABLE workers ADD COLUMN memory_gib INTEGER NOT NULL DEFAULT 0;
ALTER TABLE workers ADD COLUMN labels TEXT NOT NULL DEFAULT '';           -- as in demands

-- What is paused is counted apart from what waits.
INSERT INTO state_counts (state, count) VALUES ('paused', 0);
DROP TRIGGER experiments_count_moved;
CREATE TRIGGER experiments_count_moved AFTER UPDATE OF state, paused ON experiments
WHEN OLD.state <> NEW.state OR OLD.paused <> NEW.paused BEGIN
    UPDATE state_counts SET count = count - 1 WHERE state = iif(OLD.paused, 'paused', OLD.state);
    UPDATE state_counts SET count = count + 1 WHERE state = iif(NEW.paused, 'paused', NEW.state);
END;
