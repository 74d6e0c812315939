"""The relay: the journal to Kafka, each entry once for whoever reads committed records."""
