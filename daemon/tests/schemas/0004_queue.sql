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
INSERT INTO "_sqlx_migrations" VALUES(3,'records','2025-10-09 08:53:20',1,X'CE6FAD617B6D319C7639DD09C54BEF69AB99C62D14B0DA7B36B82F17FBC73410DEFF1EDC19531DA1C54456BF95C3BC5E',1);
INSERT INTO "_sqlx_migrations" VALUES(4,'queue','2025-10-09 08:53:20',1,X'50319F767CCE23C9BD8105013F4F930B37A99B0FEE863647C7E89DF7F9B7162CD2E1F01A8144CBEC1C6067223BB7CD63',1);
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
INSERT INTO "artifacts" VALUES('experiments/1/checkpoint-0001-a1.safetensors',1,1,'checkpoint','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd',3500000,1,1,1760000006000);
INSERT INTO "artifacts" VALUES('experiments/1/checkpoint-0002-a1.safetensors',1,1,'checkpoint','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd',3500000,2,0,1760000007000);
INSERT INTO "artifacts" VALUES('experiments/1/checkpoint-0003-a1.safetensors',1,1,'checkpoint','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd',3500000,3,0,1760000008000);
INSERT INTO "artifacts" VALUES('experiments/1/final-a1.safetensors',1,1,'final-model','efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef',900000,3,0,1760000008000);
INSERT INTO "artifacts" VALUES('experiments/2/checkpoint-0001-a1.safetensors',2,1,'checkpoint','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd',3500000,1,0,1760000016000);
INSERT INTO "artifacts" VALUES('experiments/2/checkpoint-0001-a2.safetensors',2,2,'checkpoint','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd',3500000,1,0,1760000022000);
INSERT INTO "artifacts" VALUES('experiments/2/checkpoint-0002-a2.safetensors',2,2,'checkpoint','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd',3500000,2,0,1760000023000);
INSERT INTO "artifacts" VALUES('experiments/2/final-a2.safetensors',2,2,'final-model','efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef',900000,2,0,1760000023000);
INSERT INTO "artifacts" VALUES('experiments/3/checkpoint-0001-a1.safetensors',3,1,'checkpoint','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd',3500000,1,0,1760000031000);
INSERT INTO "artifacts" VALUES('experiments/6/checkpoint-0001-a1.safetensors',6,1,'checkpoint','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd',3500000,1,0,1760000050000);
INSERT INTO "artifacts" VALUES('experiments/6/checkpoint-0002-a1.safetensors',6,1,'checkpoint','cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd',3500000,2,0,1760000051000);
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
INSERT INTO "attempts" VALUES(1,1,'token-1-1','box-cpu',1760000003000,1760000009000,'succeeded',NULL,X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',0,NULL,1);
INSERT INTO "attempts" VALUES(2,1,'token-2-1','box-cpu',1760000013000,1760000017000,'signal','killed by signal 9',X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',0,NULL,1);
INSERT INTO "attempts" VALUES(2,2,'token-2-2','box-cpu',1760000019000,1760000024000,'succeeded',NULL,X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',1,'experiments/2/checkpoint-0001-a1.safetensors',1);
INSERT INTO "attempts" VALUES(3,1,'token-3-1','box-cpu',1760000028000,1760000032000,'diverged','the loss is not a number at step 7',X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',0,NULL,1);
INSERT INTO "attempts" VALUES(4,1,'token-4-1','box-cpu',1760000036000,1760000039000,'cancelled',NULL,X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',0,NULL,1);
INSERT INTO "attempts" VALUES(6,1,'token-6-1','box-cpu',1760000047000,NULL,'running',NULL,X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',0,NULL,1);
INSERT INTO "attempts" VALUES(7,1,'token-7-1','box-cpu',1760000054000,NULL,'running',NULL,X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',0,NULL,1);
INSERT INTO "attempts" VALUES(11,1,'token-11-1','box-cpu',1760000067000,1760000070000,'device','CUDA error',X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',0,NULL,1);
INSERT INTO "attempts" VALUES(17,1,'token-17-1','box-cpu',1760000087000,NULL,'running',NULL,X'0A03626F7812036370751A05302E312E302207756E6B6E6F776E2A06322E31312E3030023A4061626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162616261626162',0,NULL,1);
CREATE TABLE demands (
    id         INTEGER PRIMARY KEY,
    gpus       INTEGER NOT NULL,
    memory_gib INTEGER NOT NULL,
    labels     TEXT    NOT NULL,                 -- sorted, separated by spaces
    UNIQUE (gpus, memory_gib, labels)
) STRICT;
INSERT INTO "demands" VALUES(0,0,0,'');
INSERT INTO "demands" VALUES(1,1,0,'');
INSERT INTO "demands" VALUES(2,1,16,'big fast');
CREATE TABLE dependencies (
    experiment INTEGER NOT NULL REFERENCES experiments (id),
    needs      INTEGER NOT NULL REFERENCES experiments (id),
    PRIMARY KEY (experiment, needs),
    CHECK (needs < experiment)
) STRICT, WITHOUT ROWID;
INSERT INTO "dependencies" VALUES(16,3);
INSERT INTO "dependencies" VALUES(15,6);
CREATE TABLE epochs (
    experiment INTEGER NOT NULL REFERENCES experiments (id),
    epoch      INTEGER NOT NULL,                   -- from 1
    attempt    INTEGER NOT NULL,
    top1_error REAL,                               -- test error in per cent, for status; NULL: not a number
    metrics    BLOB    NOT NULL,                   -- EpochMetrics
    PRIMARY KEY (experiment, epoch)
) STRICT, WITHOUT ROWID;
INSERT INTO "epochs" VALUES(1,1,1,9.0,X'0801108E06199A9999999999B93F21000000000000F83F29000000000000204039666666666666F63F41000000000000224049000000000000024059000000000000D03F610000000000803E40690000000000009940');
INSERT INTO "epochs" VALUES(1,2,1,8.0,X'0802109C0C199A9999999999B93F21000000000000F83F290000000000001C4039666666666666F63F41000000000000204049000000000000004059000000000000D03F610000000000803E40690000000000009940');
INSERT INTO "epochs" VALUES(1,3,1,7.0,X'080310AA12199A9999999999B93F21000000000000F83F29000000000000184039666666666666F63F410000000000001C4049000000000000FC3F59000000000000D03F610000000000803E40690000000000009940');
INSERT INTO "epochs" VALUES(2,1,2,11.0,X'0801108E06199A9999999999B93F21000000000000F83F29000000000000244039666666666666F63F41000000000000264049000000000000064059000000000000D03F610000000000803E40690000000000009940');
INSERT INTO "epochs" VALUES(2,2,2,10.0,X'0802109C0C199A9999999999B93F21000000000000F83F29000000000000224039666666666666F63F41000000000000244049000000000000044059000000000000D03F610000000000803E40690000000000009940');
INSERT INTO "epochs" VALUES(3,1,1,79.0,X'0801108E06199A9999999999B93F21000000000000F83F29000000000080534039666666666666F63F410000000000C05340490000000000C0334059000000000000D03F610000000000803E40690000000000009940');
INSERT INTO "epochs" VALUES(6,1,1,59.0,X'0801108E06199A9999999999B93F21000000000000F83F290000000000004D4039666666666666F63F410000000000804D40490000000000802D4059000000000000D03F610000000000803E40690000000000009940');
INSERT INTO "epochs" VALUES(6,2,1,58.0,X'0802109C0C199A9999999999B93F21000000000000F83F290000000000804C4039666666666666F63F410000000000004D40490000000000002D4059000000000000D03F610000000000803E40690000000000009940');
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
INSERT INTO "events" VALUES(4,1,1,1760000010000,'succeeded');
INSERT INTO "events" VALUES(5,2,0,1760000012000,'submitted');
INSERT INTO "events" VALUES(6,2,1,1760000014000,'leased to box-cpu');
INSERT INTO "events" VALUES(7,2,1,1760000015000,'started');
INSERT INTO "events" VALUES(8,2,1,1760000018000,'signal: killed by signal 9; queued again after failure 1, not before 0.8 s from now');
INSERT INTO "events" VALUES(9,2,2,1760000020000,'leased to box-cpu');
INSERT INTO "events" VALUES(10,2,2,1760000021000,'started');
INSERT INTO "events" VALUES(11,2,2,1760000025000,'succeeded');
INSERT INTO "events" VALUES(12,3,0,1760000027000,'submitted');
INSERT INTO "events" VALUES(13,3,1,1760000029000,'leased to box-cpu');
INSERT INTO "events" VALUES(14,3,1,1760000030000,'started');
INSERT INTO "events" VALUES(15,3,1,1760000033000,'diverged: the loss is not a number at step 7; not tried again');
INSERT INTO "events" VALUES(16,4,0,1760000035000,'submitted');
INSERT INTO "events" VALUES(17,4,1,1760000037000,'leased to box-cpu');
INSERT INTO "events" VALUES(18,4,1,1760000038000,'started');
INSERT INTO "events" VALUES(19,4,1,1760000040000,'cancelled');
INSERT INTO "events" VALUES(20,5,0,1760000042000,'submitted');
INSERT INTO "events" VALUES(21,5,0,1760000044000,'cancelled by request');
INSERT INTO "events" VALUES(22,6,0,1760000046000,'submitted');
INSERT INTO "events" VALUES(23,6,1,1760000048000,'leased to box-cpu');
INSERT INTO "events" VALUES(24,6,1,1760000049000,'started');
INSERT INTO "events" VALUES(25,7,0,1760000053000,'submitted');
INSERT INTO "events" VALUES(26,7,1,1760000055000,'leased to box-cpu');
INSERT INTO "events" VALUES(27,7,1,1760000056000,'started');
INSERT INTO "events" VALUES(28,7,1,1760000057000,'cancelled by request');
INSERT INTO "events" VALUES(29,8,0,1760000059000,'submitted');
INSERT INTO "events" VALUES(30,9,0,1760000061000,'submitted');
INSERT INTO "events" VALUES(31,10,0,1760000063000,'submitted, to retry 3');
INSERT INTO "events" VALUES(32,3,1,1760000064000,'retried as 10');
INSERT INTO "events" VALUES(33,11,0,1760000066000,'submitted');
INSERT INTO "events" VALUES(34,11,1,1760000068000,'leased to box-cpu');
INSERT INTO "events" VALUES(35,11,1,1760000069000,'started');
INSERT INTO "events" VALUES(36,11,1,1760000071000,'device: CUDA error; queued again after failure 1, not before 3.1 s from now');
INSERT INTO "events" VALUES(37,12,0,1760000073000,'submitted');
INSERT INTO "events" VALUES(38,13,0,1760000075000,'submitted');
INSERT INTO "events" VALUES(39,13,0,1760000076000,'paused by request');
INSERT INTO "events" VALUES(40,14,0,1760000078000,'submitted');
INSERT INTO "events" VALUES(41,15,0,1760000080000,'submitted');
INSERT INTO "events" VALUES(42,16,0,1760000082000,'submitted');
INSERT INTO "events" VALUES(43,16,0,1760000084000,'it was to run after 3, which failed');
INSERT INTO "events" VALUES(44,17,0,1760000086000,'submitted');
INSERT INTO "events" VALUES(45,17,1,1760000088000,'leased to box-cpu');
INSERT INTO "events" VALUES(46,17,1,1760000089000,'started');
INSERT INTO "events" VALUES(47,17,1,1760000090000,'to be paused by request: its worker is told to stop');
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
, paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)), stopping TEXT CHECK (stopping IN ('pause', 'yield')), priority INTEGER NOT NULL DEFAULT 0, preempts INTEGER NOT NULL DEFAULT 0, share INTEGER NOT NULL DEFAULT 0, waits_for INTEGER NOT NULL DEFAULT 0, needed INTEGER NOT NULL DEFAULT 0, avoid TEXT, demand INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO "experiments" VALUES(1,'succeeded-plain','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"succeeded-plain","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":1,"weight_decay":0.0001}}','22470072831c84decb70932e392b396c325c27b4f197b987e9631d174f129596',0,10,NULL,1760000001000,'succeeded',1,0,0,0,NULL,NULL,1760000003000,1760000009000,0,NULL,0,0,1,0,0,NULL,0);
INSERT INTO "experiments" VALUES(2,'succeeded-resumed','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"succeeded-resumed","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":2,"weight_decay":0.0001}}','90b40b13311a44eab5daa46bc9ed40e1d82c42c7b441beaaee69b9c808dc733e',0,10,NULL,1760000011000,'succeeded',2,0,0,0,NULL,NULL,1760000013000,1760000024000,0,NULL,0,0,1,0,0,'box-cpu',0);
INSERT INTO "experiments" VALUES(3,'failed-diverged','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"failed-diverged","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":3,"weight_decay":0.0001}}','21e2f5317b2501a8a95eb0d09b461b2a58c8637dd4a67e8f228434e6190ebe0d',0,10,NULL,1760000026000,'failed',1,1,0,0,'diverged','the loss is not a number at step 7',1760000028000,1760000032000,0,NULL,0,0,0,0,1,'box-cpu',0);
INSERT INTO "experiments" VALUES(4,'cancelled-running','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"cancelled-running","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":4,"weight_decay":0.0001}}','e0032fe60ac5d33e50207e2dd730c936ea9461ee36ebffbaa2ccfd8f47b782eb',0,10,NULL,1760000034000,'cancelled',1,0,0,0,NULL,NULL,1760000036000,1760000039000,0,NULL,0,0,0,0,0,NULL,0);
INSERT INTO "experiments" VALUES(5,'cancelled-waiting','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"cancelled-waiting","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":5,"weight_decay":0.0001}}','0fbcbab944d50c6b49c2d8c18d12615fae1ef9e21666ece52955a9958bd57a6a',0,10,NULL,1760000041000,'cancelled',0,0,0,0,NULL,NULL,NULL,1760000043000,0,NULL,0,0,0,0,0,NULL,0);
INSERT INTO "experiments" VALUES(6,'running-one','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"running-one","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":6,"weight_decay":0.0001}}','a3ea473833be42d34f05d610f0941aa8c23f168deb6cbff24c4b7bcb90f27abb',0,10,NULL,1760000045000,'running',1,0,0,0,NULL,NULL,1760000047000,NULL,0,NULL,0,0,0,0,1,NULL,0);
INSERT INTO "experiments" VALUES(7,'running-cancelling','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"running-cancelling","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":7,"weight_decay":0.0001}}','ab0469df070c00f97e5777ea0f7f8a51ba7fe0463e0c940acf74e8e0925585dc',0,10,NULL,1760000052000,'running',1,0,1,0,NULL,NULL,1760000054000,NULL,0,NULL,0,0,0,0,0,NULL,0);
INSERT INTO "experiments" VALUES(8,'queued-turn-1','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"queued-turn-1","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":8,"weight_decay":0.0001}}','011f92e86046fd167dfb01041b0557941f82445e2459bc17de61dca7ba21db69',0,10,NULL,1760000058000,'queued',0,0,0,0,NULL,NULL,NULL,NULL,0,NULL,10,1,0,0,0,NULL,0);
INSERT INTO "experiments" VALUES(9,'queued-turn-2','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"queued-turn-2","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":9,"weight_decay":0.0001}}','fecc15f6936fe9cb6e66ef68bf8af155f790b9ca577fd634826acc71f7ff00de',0,10,NULL,1760000060000,'queued',0,0,0,0,NULL,NULL,NULL,NULL,0,NULL,0,0,0,0,0,NULL,0);
INSERT INTO "experiments" VALUES(10,'queued-turn-3','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"queued-turn-3","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":3,"weight_decay":0.0001}}','21e2f5317b2501a8a95eb0d09b461b2a58c8637dd4a67e8f228434e6190ebe0d',0,10,3,1760000062000,'queued',0,0,0,0,NULL,NULL,NULL,NULL,0,NULL,0,0,0,0,0,NULL,0);
INSERT INTO "experiments" VALUES(11,'queued-turn-4','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"queued-turn-4","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":10,"weight_decay":0.0001}}','cc33630961879e88c57143beab20bac366ddb43f765d88a9f8b8005a7a5e2e74',0,10,NULL,1760000065000,'queued',1,1,0,1760000072100,'device','CUDA error',1760000067000,NULL,0,NULL,0,0,0,0,0,'box-cpu',0);
INSERT INTO "experiments" VALUES(12,'queued-turn-5','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"queued-turn-5","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":11,"weight_decay":0.0001}}','4d8d12eea4dce579cc9616e1888152892d4a0dcc983ac9b305c1eb138e4feed7',0,10,NULL,1760000072000,'queued',0,0,0,0,NULL,NULL,NULL,NULL,0,NULL,0,0,0,0,0,NULL,0);
INSERT INTO "experiments" VALUES(13,'paused-waiting','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"paused-waiting","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":12,"weight_decay":0.0001}}','56012fad4958cf3f6a20ce6918f7dc274e3f3b1f2bc24b12fe2011a207516012',0,10,NULL,1760000074000,'queued',0,0,0,0,NULL,NULL,NULL,NULL,1,NULL,0,0,0,0,0,NULL,0);
INSERT INTO "experiments" VALUES(14,'queued-nobody','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"queued-nobody","published":{"top1_error":6.22},"resources":{"gpus":1,"labels":["big","fast"],"max_attempts":10,"memory_gib":16,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":13,"weight_decay":0.0001}}','121cb1a44c496619e97f14f809e8135ea3ae919a5cd658197a339e1417ec5b9c',1,10,NULL,1760000077000,'queued',0,0,0,0,NULL,NULL,NULL,NULL,0,NULL,0,0,0,0,0,NULL,2);
INSERT INTO "experiments" VALUES(15,'queued-after','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"queued-after","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":14,"weight_decay":0.0001}}','09e2194d62922aab1b15f1d0a8188d885abfe873c2448bbbed060c77c4c32236',0,10,NULL,1760000079000,'queued',0,0,0,0,NULL,NULL,NULL,NULL,0,NULL,0,0,0,1,0,NULL,0);
INSERT INTO "experiments" VALUES(16,'failed-dependency','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"failed-dependency","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":15,"weight_decay":0.0001}}','7ba13940a5fc64fa570dd944e4aaafc7fc9442e6b28bcec730053ecd6e4f7f87',0,10,NULL,1760000081000,'failed',0,0,0,0,'dependency','it was to run after 3, which failed',NULL,1760000083000,0,NULL,0,0,0,1,0,NULL,0);
INSERT INTO "experiments" VALUES(17,'running-pausing','{"data":{"augment":true,"dataset":"cifar10","workers":2},"model":{"arch":"condensenet","bottleneck":4,"condense_factor":4,"dropout":0.0,"group_1x1":4,"group_3x3":4,"growth":"8-16-32","reduction":0.5,"stages":"8-8-8"},"name":"running-pausing","published":{"top1_error":6.22},"resources":{"gpus":0,"max_attempts":10,"threads":0},"run":{"steps":["train","evaluate","convert","evaluate-converted"]},"train":{"batch_size":64,"epochs":300,"group_lasso":0.0,"lr":0.1,"momentum":0.9,"nesterov":true,"precision":"float32","schedule":"cosine","seed":16,"weight_decay":0.0001}}','290ead9a83a8f664e5252b421dfaa64549ec3d44e33dbf0dbd4a30376dbe8074',0,10,NULL,1760000085000,'running',1,0,0,0,NULL,NULL,1760000087000,NULL,0,'pause',0,0,0,0,0,NULL,0);
CREATE TABLE figures (
    experiment INTEGER NOT NULL PRIMARY KEY REFERENCES experiments (id),
    attempt    INTEGER NOT NULL,
    figures    BLOB    NOT NULL                    -- Figures
) STRICT;
INSERT INTO "figures" VALUES(1,1,X'0A1E09000000000000D03F110000000000001A4019000000000000D03F20904E121E09B81E85EB51B8CE3F119A99999999991940199A9999999999C93F20904E1802221E09A4703D0AD7A3D03F110000000000001B4019333333333333D33F20904E');
INSERT INTO "figures" VALUES(2,2,X'0A1E09000000000000D03F110000000000001A4019000000000000D03F20904E121E09B81E85EB51B8CE3F119A99999999991940199A9999999999C93F20904E1802221E09A4703D0AD7A3D03F110000000000001B4019333333333333D33F20904E');
CREATE TABLE logs (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    experiment INTEGER NOT NULL REFERENCES experiments (id),
    attempt    INTEGER NOT NULL,
    at_ms      INTEGER NOT NULL,                   -- by the worker's clock
    text       TEXT    NOT NULL
) STRICT;
INSERT INTO "logs" VALUES(1,1,1,1760000006000,'epoch 1/3');
INSERT INTO "logs" VALUES(2,1,1,1760000007000,'epoch 2/3');
INSERT INTO "logs" VALUES(3,1,1,1760000008000,'epoch 3/3');
INSERT INTO "logs" VALUES(4,2,1,1760000016000,'epoch 1/1');
INSERT INTO "logs" VALUES(5,2,2,1760000022000,'epoch 1/2');
INSERT INTO "logs" VALUES(6,2,2,1760000023000,'epoch 2/2');
INSERT INTO "logs" VALUES(7,3,1,1760000031000,'epoch 1/1');
INSERT INTO "logs" VALUES(8,6,1,1760000050000,'epoch 1/2');
INSERT INTO "logs" VALUES(9,6,1,1760000051000,'epoch 2/2');
CREATE TABLE queue (
    only_row     INTEGER PRIMARY KEY CHECK (only_row = 1),
    paused_at_ms INTEGER                         -- NULL: it dispatches
) STRICT;
INSERT INTO "queue" VALUES(1,NULL);
CREATE TABLE state_counts (
    state TEXT    NOT NULL PRIMARY KEY,
    count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "state_counts" VALUES('cancelled',2);
INSERT INTO "state_counts" VALUES('failed',2);
INSERT INTO "state_counts" VALUES('paused',1);
INSERT INTO "state_counts" VALUES('queued',7);
INSERT INTO "state_counts" VALUES('running',3);
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
, memory_gib INTEGER NOT NULL DEFAULT 0, labels TEXT NOT NULL DEFAULT '') STRICT, WITHOUT ROWID;
INSERT INTO "workers" VALUES('box-cpu','box','cpu',2,'0.1.0',1760000000000,1760000000000,64,'here');
CREATE INDEX experiments_by_hash ON experiments (spec_hash);
CREATE INDEX experiments_by_name ON experiments (name);
CREATE INDEX experiments_backoff ON experiments (not_before_ms) WHERE state = 'queued' AND not_before_ms > 0;
CREATE INDEX experiments_running ON experiments (id) WHERE state = 'running';
CREATE TRIGGER experiments_count_new AFTER INSERT ON experiments BEGIN
    UPDATE state_counts SET count = count + 1 WHERE state = NEW.state;
END;
CREATE TRIGGER experiments_final_stays AFTER UPDATE OF state ON experiments
WHEN OLD.state IN ('succeeded', 'failed', 'cancelled') AND NEW.state <> OLD.state BEGIN
    SELECT RAISE (ABORT, 'a final experiment cannot change its state');
END;
CREATE INDEX sweep_members_by_experiment ON sweep_members (experiment);
CREATE INDEX events_by_experiment ON events (experiment, id);
CREATE UNIQUE INDEX attempts_running ON attempts (experiment) WHERE ended_at_ms IS NULL;
CREATE INDEX artifacts_by_experiment ON artifacts (experiment, epoch);
CREATE INDEX logs_by_experiment ON logs (experiment, id);
CREATE INDEX experiments_ready ON experiments (demand, priority DESC, share, id, not_before_ms)
WHERE state = 'queued' AND paused = 0 AND waits_for = 0;
CREATE INDEX experiments_preempting ON experiments (priority DESC, id)
WHERE state = 'queued' AND paused = 0 AND waits_for = 0 AND preempts = 1;
CREATE INDEX experiments_failed ON experiments (id) WHERE state = 'failed';
CREATE INDEX dependencies_by_needs ON dependencies (needs, experiment);
CREATE TRIGGER experiments_count_moved AFTER UPDATE OF state, paused ON experiments
WHEN OLD.state <> NEW.state OR OLD.paused <> NEW.paused BEGIN
    UPDATE state_counts SET count = count - 1 WHERE state = iif(OLD.paused, 'paused', OLD.state);
    UPDATE state_counts SET count = count + 1 WHERE state = iif(NEW.paused, 'paused', NEW.state);
END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('experiments',17);
INSERT INTO "sqlite_sequence" VALUES('sweeps',2);
INSERT INTO "sqlite_sequence" VALUES('events',47);
INSERT INTO "sqlite_sequence" VALUES('logs',9);
COMMIT;
