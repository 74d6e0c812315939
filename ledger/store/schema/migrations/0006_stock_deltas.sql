-- What each entry made of the stock, for caches: derived from the events, kept for a while, in no digest.

CREATE TABLE ledger.stock_delta (
    entry bigint PRIMARY KEY,
    goods text COLLATE "C" NOT NULL,        -- a value a line, as `write_stock` is sent them
    versions text COLLATE "C" NOT NULL,
    on_hands text COLLATE "C" NOT NULL
);
-- Compressing would cost each batch more than the few bytes are worth, which go soon.
ALTER TABLE ledger.stock_delta ALTER goods SET STORAGE EXTERNAL, ALTER versions SET STORAGE EXTERNAL,
    ALTER on_hands SET STORAGE EXTERNAL;

-- The deltas of entries up to this position are gone, or never were.
CREATE TABLE ledger.stock_horizon (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL
);
INSERT INTO ledger.stock_horizon (position) SELECT position FROM ledger.head;

-- What follows a checkpoint, in one snapshot: where the head is, the hash by which the checkpoint proves itself
-- (null: there is no such position), the horizon, and up to `most` entries, with what they made of the stock.
-- Asked for many times a second, so its plan is made once a session, whatever pooler stands between.
CREATE FUNCTION ledger.stock_changes(checkpoint bigint, most integer) RETURNS TABLE (
    head bigint, head_hash bytea, proof bytea, horizon bigint, standby boolean,
    "position" bigint, hash bytea, goods text, versions text, on_hands text
) LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
    SELECT h.position, h.hash,
           CASE checkpoint WHEN 0 THEN sha256('stockledger')
                ELSE (SELECT j.hash FROM ledger.journal j WHERE j.position = checkpoint) END,
           z.position, pg_is_in_recovery(), c.position, c.hash, c.goods, c.versions, c.on_hands
    FROM ledger.head h CROSS JOIN ledger.stock_horizon z LEFT JOIN LATERAL (
        SELECT j.position, j.hash, d.goods, d.versions, d.on_hands
        FROM ledger.journal j LEFT JOIN ledger.stock_delta d ON d.entry = j.entry
        WHERE j.position > checkpoint ORDER BY j.position LIMIT most
    ) c ON true
    ORDER BY c.position;
END $$;

-- Forgets the deltas of entries that are older than `keep`, some at a time; returns of how many entries.
-- Whoever reads a delta later than its horizon would miss a change, so both move in one transaction.
CREATE FUNCTION ledger.prune_stock_deltas(keep interval) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    horizon bigint;
    last bigint;
BEGIN
    SELECT z.position INTO horizon FROM ledger.stock_horizon z FOR UPDATE SKIP LOCKED;   -- or somebody is at it
    SELECT max(c.position) INTO last FROM (
        SELECT j.position, j.recorded_at FROM ledger.journal j
        WHERE j.position > horizon ORDER BY j.position LIMIT 2000
    ) c WHERE c.recorded_at < clock_timestamp() - keep;
    IF last IS NULL THEN
        RETURN 0;
    END IF;
    DELETE FROM ledger.stock_delta d USING ledger.journal j
    WHERE j.position > horizon AND j.position <= last AND d.entry = j.entry;
    UPDATE ledger.stock_horizon SET position = last;
    RETURN last - horizon;
END $$;
REVOKE ALL ON FUNCTION ledger.prune_stock_deltas FROM PUBLIC;
