-- The rows of an entry are found in every table without reading the others: `verify` and its digests ask for them.

CREATE INDEX cancellation_entry ON ledger.cancellation USING brin (entry) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX dead_letter_entry ON ledger.dead_letter USING brin (entry) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX conflict_entry ON ledger.conflict USING brin (entry) WITH (pages_per_range = 32, autosummarize = on);
CREATE INDEX gap_entry ON ledger.gap USING brin (entry) WITH (pages_per_range = 32, autosummarize = on);
