-- Restores from a backup. Leases given after the backup was taken are unknown here, yet their children may live: until
-- the coordinator has waited for as long as a lease lasts (settled), it gives nothing out. Settled from the start where the
-- database that was replaced shows that nothing ran.
CREATE TABLE restores (
    id           INTEGER PRIMARY KEY,
    at_ms        INTEGER NOT NULL,
    newest_ms    INTEGER,                        -- of the newest event in the backup; NULL: it had none
    settled      INTEGER NOT NULL DEFAULT 0 CHECK (settled IN (0, 1))
) STRICT;
