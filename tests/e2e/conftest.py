"""What the tests of the whole program share."""

import pytest


@pytest.fixture
def kafka_settings(services):
    """More settings for the command's environment: the mock broker's classic groups are slow."""
    return {} if services.kafka.real else {"KAFKA_GROUP_PROTOCOL": "consumer"}
