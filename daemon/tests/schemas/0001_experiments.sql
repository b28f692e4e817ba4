BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO "_sqlx_migrations" VALUES(1,'experiments','2025-10-09 08:53:20',1,X'26CB26F9D27B9013CEF5D540027437DFF143D506C4657C202F5D12D1849EC9A6FFE51D513360CE8C496F4DA97065B767',1);
CREATE TABLE events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    experiment INTEGER NOT NULL REFERENCES experiments (id),
    attempt    INTEGER NOT NULL,
    at_ms      INTEGER NOT NULL,
    what       TEXT    NOT NULL                  -- one sentence
) STRICT;
INSERT INTO "events" VALUES(1,1,0,1760000002000,'submitted');
INSERT INTO "events" VALUES(2,1,0,1760000004000,'cancelled by request');
INSERT INTO "events" VALUES(3,2,0,1760000006000,'submitted');
INSERT INTO "events" VALUES(4,3,0,1760000008000,'submitted');
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
INSERT INTO "experiments" VALUES(1,'cancelled-waiting','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"cancelled-waiting","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":1,"weight_decay":0.0001}}','22470072831c84decb70932e392b396c325c27b4f197b987e9631d174f129596',0,10,NULL,1760000001000,'cancelled',0,0,0,0,NULL,NULL,NULL,1760000003000);
INSERT INTO "experiments" VALUES(2,'queued-turn-1','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"queued-turn-1","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":2,"weight_decay":0.0001}}','90b40b13311a44eab5daa46bc9ed40e1d82c42c7b441beaaee69b9c808dc733e',0,10,NULL,1760000005000,'queued',0,0,0,0,NULL,NULL,NULL,NULL);
INSERT INTO "experiments" VALUES(3,'queued-turn-2','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"queued-turn-2","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":3,"weight_decay":0.0001}}','21e2f5317b2501a8a95eb0d09b461b2a58c8637dd4a67e8f228434e6190ebe0d',0,10,NULL,1760000007000,'queued',0,0,0,0,NULL,NULL,NULL,NULL);
CREATE TABLE state_counts (
    state TEXT    NOT NULL PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "state_counts" VALUES('cancelled',1);
INSERT INTO "state_counts" VALUES('failed',0);
INSERT INTO "state_counts" VALUES('queued',2);
INSERT INTO "state_counts" VALUES('running',0);
INSERT INTO "state_counts" VALUES('succeeded',0);
CREATE TABLE sweep_members (
    sweep      INTEGER NOT NULL REFERENCES sweeps (id),
    experiment INTEGER NOT NULL REFERENCES experiments (id),
    PRIMARY KEY (sweep, experiment)
) STRICT, WITHOUT ROWID;
CREATE TABLE sweeps (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT    NOT NULL UNIQUE,
    created_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX experiments_by_hash ON experiments (spec_hash);
CREATE INDEX experiments_by_name ON experiments (name);
CREATE INDEX experiments_queue ON experiments (needs_gpu, id) WHERE state = 'queued';
CREATE INDEX experiments_backoff ON experiments (not_before_ms) WHERE state = 'queued' AND not_before_ms > 0;
CREATE INDEX experiments_running ON experiments (id) WHERE state = 'running';
CREATE TRIGGER experiments_count_new AFTER INSERT ON experiments BEGIN
    UPDATE state_counts SET count = count + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER experiments_count_moved AFTER UPDATE OF state ON experiments WHEN OLD.state <> NEW.state BEGIN
    UPDATE state_counts SET count = count - 1 WHERE state = OLD.state;
    UPDATE state_counts SET count = count + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER experiments_final_stays AFTER UPDATE OF state ON experiments
WHEN OLD.state IN ('succeeded', 'failed', 'cancelled') AND NEW.state <> OLD.state BEGIN
    SELECT RAISE (ABORT, 'a final experiment cannot change its state');
END;
CREATE INDEX sweep_members_by_experiment ON sweep_members (experiment);
CREATE INDEX events_by_experiment ON events (experiment, id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('experiments',3);
INSERT INTO "sqlite_sequence" VALUES('events',4);
COMMIT;
