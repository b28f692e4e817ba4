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
INSERT INTO "_sqlx_migrations" VALUES(2,'attempts','2025-10-09 08:53:20',1,X'D01E357CA2ED66912AF3C4C2F101127FF86A80D07609BEDA08643D388E2E077F560B97F1D58A8E489D89AF53EB1A868C',1);
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
INSERT INTO "attempts" VALUES(1,1,'token-1-1','box-cpu',1760000003000,1760000006000,'succeeded',NULL,X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',0,NULL,1);
INSERT INTO "attempts" VALUES(2,1,'token-2-1','box-cpu',1760000010000,1760000013000,'signal','killed by signal 9',X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',0,NULL,1);
INSERT INTO "attempts" VALUES(2,2,'token-2-2','box-cpu',1760000015000,1760000018000,'succeeded',NULL,X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',1,'experiments/2/checkpoint-0001-a1.safetensors',1);
INSERT INTO "attempts" VALUES(3,1,'token-3-1','box-cpu',1760000022000,1760000025000,'diverged','the loss is not a number at step 7',X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',0,NULL,1);
INSERT INTO "attempts" VALUES(4,1,'token-4-1','box-cpu',1760000029000,1760000032000,'cancelled',NULL,X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',0,NULL,1);
INSERT INTO "attempts" VALUES(6,1,'token-6-1','box-cpu',1760000040000,NULL,'running',NULL,X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',0,NULL,1);
INSERT INTO "attempts" VALUES(7,1,'token-7-1','box-cpu',1760000045000,NULL,'running',NULL,X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',0,NULL,1);
INSERT INTO "attempts" VALUES(10,1,'token-10-1','box-cpu',1760000056000,1760000059000,'device','CUDA error',X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',0,NULL,1);
CREATE TABLE events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    experiment INTEGER NOT NULL REFERENCES experiments (id),
    attempt    INTEGER NOT NULL,
    at_ms      INTEGER NOT NULL,
    what       TEXT    NOT NULL                  -- one sentence
) STRICT;
INSERT INTO "events" VALUES(1,1,0,1760000002000,'submitted');
INSERT INTO "events" VALUES(2,1,1,1760000004000,'leased to box-cpu');
INSERT INTO "events" VALUES(3,1,1,1760000005000,'started');
INSERT INTO "events" VALUES(4,1,1,1760000007000,'succeeded');
INSERT INTO "events" VALUES(5,2,0,1760000009000,'submitted');
INSERT INTO "events" VALUES(6,2,1,1760000011000,'leased to box-cpu');
INSERT INTO "events" VALUES(7,2,1,1760000012000,'started');
INSERT INTO "events" VALUES(8,2,1,1760000014000,'signal: killed by signal 9; queued again after failure 1, not before 0.8 s from now');
INSERT INTO "events" VALUES(9,2,2,1760000016000,'leased to box-cpu');
INSERT INTO "events" VALUES(10,2,2,1760000017000,'started');
INSERT INTO "events" VALUES(11,2,2,1760000019000,'succeeded');
INSERT INTO "events" VALUES(12,3,0,1760000021000,'submitted');
INSERT INTO "events" VALUES(13,3,1,1760000023000,'leased to box-cpu');
INSERT INTO "events" VALUES(14,3,1,1760000024000,'started');
INSERT INTO "events" VALUES(15,3,1,1760000026000,'diverged: the loss is not a number at step 7; not tried again');
INSERT INTO "events" VALUES(16,4,0,1760000028000,'submitted');
INSERT INTO "events" VALUES(17,4,1,1760000030000,'leased to box-cpu');
INSERT INTO "events" VALUES(18,4,1,1760000031000,'started');
INSERT INTO "events" VALUES(19,4,1,1760000033000,'cancelled');
INSERT INTO "events" VALUES(20,5,0,1760000035000,'submitted');
INSERT INTO "events" VALUES(21,5,0,1760000037000,'cancelled by request');
INSERT INTO "events" VALUES(22,6,0,1760000039000,'submitted');
INSERT INTO "events" VALUES(23,6,1,1760000041000,'leased to box-cpu');
INSERT INTO "events" VALUES(24,6,1,1760000042000,'started');
INSERT INTO "events" VALUES(25,7,0,1760000044000,'submitted');
INSERT INTO "events" VALUES(26,7,1,1760000046000,'leased to box-cpu');
INSERT INTO "events" VALUES(27,7,1,1760000047000,'started');
INSERT INTO "events" VALUES(28,7,1,1760000048000,'cancelled by request');
INSERT INTO "events" VALUES(29,8,0,1760000050000,'submitted');
INSERT INTO "events" VALUES(30,9,0,1760000052000,'submitted, to retry 3');
INSERT INTO "events" VALUES(31,3,1,1760000053000,'retried as 9');
INSERT INTO "events" VALUES(32,10,0,1760000055000,'submitted');
INSERT INTO "events" VALUES(33,10,1,1760000057000,'leased to box-cpu');
INSERT INTO "events" VALUES(34,10,1,1760000058000,'started');
INSERT INTO "events" VALUES(35,10,1,1760000060000,'device: CUDA error; queued again after failure 1, not before 3.1 s from now');
INSERT INTO "events" VALUES(36,11,0,1760000062000,'submitted');
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
INSERT INTO "experiments" VALUES(1,'succeeded-plain','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"succeeded-plain","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":1,"weight_decay":0.0001}}','22470072831c84decb70932e392b396c325c27b4f197b987e9631d174f129596',0,10,NULL,1760000001000,'succeeded',1,0,0,0,NULL,NULL,1760000003000,1760000006000);
INSERT INTO "experiments" VALUES(2,'succeeded-resumed','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"succeeded-resumed","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":2,"weight_decay":0.0001}}','90b40b13311a44eab5daa46bc9ed40e1d82c42c7b441beaaee69b9c808dc733e',0,10,NULL,1760000008000,'succeeded',2,0,0,0,NULL,NULL,1760000010000,1760000018000);
INSERT INTO "experiments" VALUES(3,'failed-diverged','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"failed-diverged","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":3,"weight_decay":0.0001}}','21e2f5317b2501a8a95eb0d09b461b2a58c8637dd4a67e8f228434e6190ebe0d',0,10,NULL,1760000020000,'failed',1,1,0,0,'diverged','the loss is not a number at step 7',1760000022000,1760000025000);
INSERT INTO "experiments" VALUES(4,'cancelled-running','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"cancelled-running","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":4,"weight_decay":0.0001}}','e0032fe60ac5d33e50207e2dd730c936ea9461ee36ebffbaa2ccfd8f47b782eb',0,10,NULL,1760000027000,'cancelled',1,0,0,0,NULL,NULL,1760000029000,1760000032000);
INSERT INTO "experiments" VALUES(5,'cancelled-waiting','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"cancelled-waiting","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":5,"weight_decay":0.0001}}','0fbcbab944d50c6b49c2d8c18d12615fae1ef9e21666ece52955a9958bd57a6a',0,10,NULL,1760000034000,'cancelled',0,0,0,0,NULL,NULL,NULL,1760000036000);
INSERT INTO "experiments" VALUES(6,'running-one','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"running-one","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":6,"weight_decay":0.0001}}','a3ea473833be42d34f05d610f0941aa8c23f168deb6cbff24c4b7bcb90f27abb',0,10,NULL,1760000038000,'running',1,0,0,0,NULL,NULL,1760000040000,NULL);
INSERT INTO "experiments" VALUES(7,'running-cancelling','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"running-cancelling","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":7,"weight_decay":0.0001}}','ab0469df070c00f97e5777ea0f7f8a51ba7fe0463e0c940acf74e8e0925585dc',0,10,NULL,1760000043000,'running',1,0,1,0,NULL,NULL,1760000045000,NULL);
INSERT INTO "experiments" VALUES(8,'queued-turn-1','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"queued-turn-1","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":8,"weight_decay":0.0001}}','011f92e86046fd167dfb01041b0557941f82445e2459bc17de61dca7ba21db69',0,10,NULL,1760000049000,'queued',0,0,0,0,NULL,NULL,NULL,NULL);
INSERT INTO "experiments" VALUES(9,'queued-turn-2','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"queued-turn-2","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":3,"weight_decay":0.0001}}','21e2f5317b2501a8a95eb0d09b461b2a58c8637dd4a67e8f228434e6190ebe0d',0,10,3,1760000051000,'queued',0,0,0,0,NULL,NULL,NULL,NULL);
INSERT INTO "experiments" VALUES(10,'queued-turn-3','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"queued-turn-3","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":9,"weight_decay":0.0001}}','fecc15f6936fe9cb6e66ef68bf8af155f790b9ca577fd634826acc71f7ff00de',0,10,NULL,1760000054000,'queued',1,1,0,1760000061100,'device','CUDA error',1760000056000,NULL);
INSERT INTO "experiments" VALUES(11,'queued-turn-4','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"queued-turn-4","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":10,"weight_decay":0.0001}}','cc33630961879e88c57143beab20bac366ddb43f765d88a9f8b8005a7a5e2e74',0,10,NULL,1760000061000,'queued',0,0,0,0,NULL,NULL,NULL,NULL);
CREATE TABLE state_counts (
    state TEXT    NOT NULL PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "state_counts" VALUES('cancelled',2);
INSERT INTO "state_counts" VALUES('failed',1);
INSERT INTO "state_counts" VALUES('queued',4);
INSERT INTO "state_counts" VALUES('running',2);
INSERT INTO "state_counts" VALUES('succeeded',2);
CREATE TABLE sweep_members (
    sweep      INTEGER NOT NULL REFERENCES sweeps (id),
    experiment INTEGER NOT NULL REFERENCES experiments (id),
    PRIMARY KEY (sweep, experiment)
) STRICT, WITHOUT ROWID;
INSERT INTO "sweep_members" VALUES(1,1);
INSERT INTO "sweep_members" VALUES(1,2);
CREATE TABLE sweeps (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT    NOT NULL UNIQUE,
    created_at_ms INTEGER NOT NULL
) STRICT;
INSERT INTO "sweeps" VALUES(1,'cifar10',1760000001000);
CREATE TABLE workers (
    name          TEXT    NOT NULL PRIMARY KEY,
    host          TEXT    NOT NULL,
    device        TEXT    NOT NULL,
    slots         INTEGER NOT NULL,
    version       TEXT    NOT NULL,
    first_seen_ms INTEGER NOT NULL,
    last_seen_ms  INTEGER NOT NULL                 -- of its last attaching or leaving
) STRICT, WITHOUT ROWID;
INSERT INTO "workers" VALUES('box-cpu','box','cpu',2,'0.1.0',1760000000000,1760000000000);
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
CREATE UNIQUE INDEX attempts_running ON attempts (experiment) WHERE ended_at_ms IS NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('experiments',11);
INSERT INTO "sqlite_sequence" VALUES('sweeps',2);
INSERT INTO "sqlite_sequence" VALUES('events',36);
COMMIT;
