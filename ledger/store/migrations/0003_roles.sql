-- Two roles to be members of: `stockledger_writer` for workers, `stockledger_reader` for everyone else.
-- Roles belong to the whole server; where this user may not make them, docs/OPERATING.md has the statements.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['stockledger_writer', 'stockledger_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name);
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;   -- another database's migration was first
                WHEN insufficient_privilege THEN RAISE NOTICE 'role % not made: no right to', name;
            END;
        END IF;
    END LOOP;
END $$;

REVOKE ALL ON FUNCTION ledger.write_stock, ledger.seal, ledger.lock_head FROM PUBLIC;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'stockledger_reader') THEN
        GRANT USAGE ON SCHEMA ledger TO stockledger_reader;
        GRANT SELECT ON ledger.events, ledger.outcomes, ledger.stock_levels, ledger.purchases, ledger.dead_letters,
            ledger.conflicts, ledger.gaps, ledger.journal_entries TO stockledger_reader;
    END IF;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'stockledger_writer') THEN
        GRANT USAGE ON SCHEMA ledger TO stockledger_writer;
        GRANT USAGE ON SEQUENCE ledger.entry_number TO stockledger_writer;
        GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO stockledger_writer;
        GRANT INSERT ON ledger.identity, ledger.lane, ledger.event, ledger.processed_message, ledger.cancellation,
            ledger.dead_letter, ledger.conflict, ledger.gap, ledger.stock, ledger.account TO stockledger_writer;
        GRANT UPDATE ON ledger.lane, ledger.stock, ledger.account TO stockledger_writer;
        GRANT UPDATE (status) ON ledger.dead_letter TO stockledger_writer;
        GRANT EXECUTE ON FUNCTION ledger.write_stock, ledger.seal, ledger.lock_head TO stockledger_writer;
    END IF;
END $$;
