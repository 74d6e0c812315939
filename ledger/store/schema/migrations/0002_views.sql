-- What other programs read: stable names, stable columns.

CREATE VIEW ledger.events AS
SELECT j.position, e.ordinal, e.stream, e.version, e.type, e.payload::jsonb AS data, e.source, e.id, j.recorded_at
FROM ledger.event e JOIN ledger.journal j USING (entry)
ORDER BY j.position, e.ordinal;

CREATE VIEW ledger.outcomes AS
SELECT p.source, p.id, CASE WHEN p.reason IS NULL THEN 'applied' ELSE 'rejected' END AS outcome, p.reason,
       j.topic, j.partition, p."offset", j.position, j.recorded_at, p.fingerprint
FROM ledger.processed_message p JOIN ledger.journal j USING (entry);

CREATE VIEW ledger.stock_levels AS
SELECT s.goods_id, s.on_hand, s.version
FROM ledger.stock s WHERE s.generation = (SELECT h.stock_generation FROM ledger.head h);

CREATE VIEW ledger.purchases AS
SELECT e.source, e.id, e.user_id, substr(e.stream, 7) AS goods_id, -e.delta AS quantity,
       c.id IS NOT NULL AS cancelled, j.recorded_at AS purchased_at
FROM ledger.event e
JOIN ledger.journal j USING (entry)
LEFT JOIN ledger.cancellation c ON c.id = e.id AND c.source = e.source
WHERE e.type = 'GoodsPurchased';

CREATE VIEW ledger.dead_letters AS
SELECT d.topic, d.partition, d."offset", d.code, d.detail, d.status, j.recorded_at, d.key, d.value,
       d.header_names, d.header_values
FROM ledger.dead_letter d JOIN ledger.journal j USING (entry);

CREATE VIEW ledger.conflicts AS
SELECT c.source, c.id, c.first_fingerprint, c.second_fingerprint, c.first_topic, c.first_partition, c.first_offset,
       c.second_topic, c.second_partition, c.second_offset, c.second_value, j.position, j.recorded_at
FROM ledger.conflict c JOIN ledger.journal j USING (entry);

CREATE VIEW ledger.gaps AS
SELECT g.topic, g.partition, g.first_offset, g.next_offset, g.cause, g.accepted_by, j.position, j.recorded_at
FROM ledger.gap g JOIN ledger.journal j USING (entry);

CREATE VIEW ledger.journal_entries AS
SELECT j.position, j.topic, j.partition, j.first_offset, j.next_offset, j.applied, j.rejected, j.duplicate,
       j.conflict, j.dead, j.skipped, j.applied AS events, j.hash, j.epoch, j.recorded_at
FROM ledger.journal j;
