-- The rows of an entry are found in every table without reading the others: `verify` and its digests ask for them.

CREATE INDEX cancellation_entry ON ledger.cancellation USING brin (entry) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX dead_letter_entry ON ledger.dead_letter USING brin (entry) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX conflict_entry ON ledger.conflict USING brin (entry) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX gap_entry ON ledger.gap USING brin (entry) WITH (pages_per_range = 32, autosummarize = on);

-- An answer has the conflicts of its command; they are few, so the index costs no batch anything.
CREATE INDEX conflict_id ON ledger.conflict (id);

-- Makes the newest events findable by their entry, for whoever follows them: until a vacuum comes by, the index
-- knows nothing of their blocks. Nobody is waited for: who holds the lock is such a vacuum, most likely, and one
-- that is waited for is cancelled.
CREATE FUNCTION ledger.summarize_events() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    LOCK TABLE ledger.event IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
    PERFORM brin_summarize_new_values('ledger.event_entry');
EXCEPTION
    WHEN lock_not_available THEN NULL;
END $$;
REVOKE ALL ON FUNCTION ledger.summarize_events FROM PUBLIC;
