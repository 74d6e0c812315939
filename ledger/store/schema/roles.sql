-- The ledger's two roles, and what each may do: made and repaired by every `migrate`. Nothing is taken away here.
-- A role that this user may not make is left to somebody who may (`doctor` shows the statement).

DO $$
DECLARE
    writer name;
    reader name;
    name name;
    rights text;
BEGIN
    SELECT r.writer, r.reader INTO STRICT writer, reader FROM ledger.role r;
    FOREACH name IN ARRAY ARRAY[writer, reader] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name);
            EXCEPTION
                WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL;
            END;
        END IF;
    END LOOP;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = reader) THEN
        EXECUTE format('GRANT USAGE ON SCHEMA ledger TO %I', reader);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO %I', reader);
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = writer) THEN
        FOREACH rights IN ARRAY ARRAY[
            'USAGE ON SCHEMA ledger',
            'USAGE ON SEQUENCE ledger.entry_number',
            'SELECT ON ALL TABLES IN SCHEMA ledger',
            'INSERT ON ledger.identity, ledger.event, ledger.processed_message, ledger.cancellation, ledger.dead_letter,
                ledger.conflict, ledger.gap, ledger.stock, ledger.account, ledger.stock_delta',
            'INSERT (topic, partition, topic_id, start_offset) ON ledger.lane',
            'UPDATE (next_offset, last_offset, last_leader_epoch, last_timestamp_ms, last_digest,
                epoch, owner_host, owner_pid) ON ledger.lane',
            'UPDATE (on_hand, version) ON ledger.stock',
            'UPDATE (version, closed) ON ledger.account',
            'UPDATE (status) ON ledger.dead_letter',
            'UPDATE (position) ON ledger.projection',       -- following; the rest is the owner's
            'EXECUTE ON FUNCTION ledger.write_stock, ledger.seal, ledger.lock_head, ledger.prune_stock_deltas,
                ledger.summarize_events'
        ] LOOP
            EXECUTE format('GRANT %s TO %I', rights, writer);
        END LOOP;
        FOR name IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'ledger'::regnamespace
                    AND c.relkind = 'p' AND c.relname <> 'stock' LOOP       -- the projections' tables
            EXECUTE format('GRANT INSERT, UPDATE ON ledger.%I TO %I', name, writer);
        END LOOP;
    END IF;
END $$;
