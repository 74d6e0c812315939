"""Postgres and Kafka without Docker or Java: for the demo and the fast tests."""
