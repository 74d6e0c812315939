"""The contract of the topics for other languages: an AsyncAPI document, and a JSON Schema of each value."""
