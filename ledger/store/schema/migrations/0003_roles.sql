-- The names of the roles to be members of: the writer's for workers, the reader's for everyone else. Roles
-- belong to the whole server, so each ledger has its own. `roles.sql` beside this folder makes them.

CREATE TABLE ledger.role (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    writer name NOT NULL,
    reader name NOT NULL
);
INSERT INTO ledger.role (writer, reader)
SELECT 'stockledger_writer_' || suffix, 'stockledger_reader_' || suffix
FROM (SELECT CASE WHEN octet_length(current_database()) <= 44 THEN current_database()
                  ELSE md5(current_database()) END AS suffix) named;

REVOKE ALL ON FUNCTION ledger.write_stock, ledger.seal, ledger.lock_head FROM PUBLIC;
