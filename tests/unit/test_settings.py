"""Settings: where each value comes from, what is refused and how, and that no secret ever gets out."""

import pytest

from ledger.errors import BadSettings
from producer import librdkafka
from producer.routing import Routing
from stockledger.settings import PREFIX, load, strangers
from stockledger.wiring import publisher

CANARY = "canary-7f3a"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch):
    """No setting of whoever runs the tests takes part."""
    import os

    for name in list(os.environ):
        if name.upper().startswith((PREFIX, "PG")):
            monkeypatch.delenv(name)


@pytest.fixture
def env(monkeypatch):
    """`env(TOPIC="x")` sets STOCKLEDGER_TOPIC."""
    return lambda **values: [monkeypatch.setenv(PREFIX + name, value) for name, value in values.items()]


def shown(settings):
    return {row.name: (row.value, row.origin) for row in settings.rows()}


def refused(*options, **given):
    def use():
        settings = load(given, options)
        settings.conninfo()
        settings.kafka_properties()

    with pytest.raises(BadSettings) as caught:
        use()
    return caught.value


# Values and their origins


def test_defaults():
    """Without any setting the documented defaults hold, and say that they are defaults."""
    settings = load()
    assert (settings.topic, settings.group, settings.source) == ("purchase-commands", "stockledger", None)
    assert settings.conninfo() == "", "libpq's own variables decide"
    assert shown(settings)["topic"] == ("purchase-commands", "default")


def test_environment_before_default(env):
    """A variable beats the default, and is named as the origin."""
    env(TOPIC="orders", SOURCE="shop", DSN="host=db")
    assert shown(load())["topic"] == ("orders", "STOCKLEDGER_TOPIC")
    assert load().source == "shop"
    assert load().conninfo() == "host=db"


def test_command_line_before_environment(env):
    """An option beats the variable; one that wasn't given (None) doesn't."""
    env(TOPIC="orders", GROUP="team")
    settings = load({"topic": "other", "group": None})
    assert shown(settings)["topic"] == ("other", "--topic")
    assert shown(settings)["group"] == ("team", "STOCKLEDGER_GROUP")


def test_topics_are_named_with_commas_between_them(env):
    """In a variable as by the option, which may be repeated; a single one is the case of one."""
    env(TOPIC="orders, hot.1")
    settings = load()
    assert settings.topics == ("orders", "hot.1")
    assert shown(settings)["topic"] == ("orders,hot.1", "STOCKLEDGER_TOPIC")
    assert load({"topic": "orders"}).topics == ("orders",)


@pytest.mark.parametrize(
    ("value", "why"),
    [("a,b,a", "a is named twice"), ("a,", "'' must be 1 to 249"),
     ("a,..", "'..' must be 1 to 249"), ("a b", "must be 1 to 249")],
)  # fmt: skip
def test_a_topic_that_cannot_be_is_named(env, value, why):
    """Among several, which one; with where it was said."""
    env(TOPIC=value)
    fault = refused()
    assert fault.message.startswith("topic from STOCKLEDGER_TOPIC: ")
    assert why in fault.message


def test_what_is_about_one_topic_asks_for_one(env):
    """It names those that there are and the command line for the first."""
    env(TOPIC="orders,hot")
    with pytest.raises(BadSettings, match=r"STOCKLEDGER_TOPIC names 2 topics \(orders, hot\)") as caught:
        load().only_topic("publish", "-")
    assert caught.value.remedy == "stockledger publish --topic orders -- -"
    assert load({"topic": "hot"}).only_topic("publish", "-") == "hot"


def test_an_empty_variable_is_none(env):
    """`STOCKLEDGER_TOPIC=` (compose files do that) leaves the default alone, origin included."""
    env(TOPIC="")
    assert shown(load())["topic"] == ("purchase-commands", "default")


def test_kafka_properties_from_the_environment(env):
    """STOCKLEDGER_KAFKA_SASL_USERNAME is sasl.username."""
    env(KAFKA_BOOTSTRAP_SERVERS="broker:9092", KAFKA_SASL_USERNAME="app")
    settings = load()
    assert settings.kafka_properties() == {"bootstrap.servers": "broker:9092", "sasl.username": "app"}
    assert shown(settings)["sasl.username"] == ("app", "STOCKLEDGER_KAFKA_SASL_USERNAME")


def test_a_property_whose_name_has_an_underscore(env):
    """STOCKLEDGER_KAFKA_LOG_LEVEL is log_level: librdkafka's own names are asked first."""
    env(KAFKA_LOG_LEVEL="3")
    assert load().kafka == {"log_level": "3"}


def test_every_property_has_a_variable():
    """No two properties share a variable, and each one's variable leads back to it."""
    assert len(librdkafka.known()) > 100
    for name in librdkafka.known():
        assert librdkafka.dotted(name.replace(".", "_")) == name


def test_x_before_environment(env):
    """-X beats the variable of the same property and leaves the others; its value may have `=` in it."""
    env(KAFKA_BOOTSTRAP_SERVERS="one:1", KAFKA_CLIENT_ID="a")
    settings = load(properties=["bootstrap.servers=two:2", "client.id=a=b"])
    assert settings.kafka_properties() == {"bootstrap.servers": "two:2", "client.id": "a=b"}
    assert shown(settings)["bootstrap.servers"] == ("two:2", "-X")


# What is refused


def test_an_unknown_property_names_its_origin_and_the_closest(env):
    """SL-CONF-001 says which variable is wrong, and what it may have been meant to be."""
    env(KAFKA_BOOTSTRAP_SERVERS="b:1", KAFKA_ACKS_TYPO="1")
    error = refused()
    assert error.code == "SL-CONF-001"
    assert error.message == "unknown Kafka property acks.typo from STOCKLEDGER_KAFKA_ACKS_TYPO; closest: acks"


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("sesion.timeout.ms=1", "closest: session.timeout.ms"),
        ("acks=many", "acks from -X: Invalid value"),
        ("linger.ms=-5", "outside allowed range"),
        ("security.protocol=tls", "Invalid value"),
        ("error_cb=x", "unknown Kafka property error_cb"),
        ("group.id=x", "group.id from -X is set elsewhere"),
        ("bootstrap.servers", "-X takes name=value"),
        ("=x", "-X takes name=value"),
    ],
)
def test_a_wrong_property_is_refused(option, part):
    """librdkafka's own judgement, before anything connects."""
    assert part in refused("bootstrap.servers=b:1", option).message


def test_no_broker():
    """Nobody guesses a broker."""
    assert "STOCKLEDGER_KAFKA_BOOTSTRAP_SERVERS" in refused().remedy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("topic", "two words"),
        ("topic", ""),
        ("group", ""),
        ("source", "two words"),
        ("source", "ü"),
        ("dsn", "db"),
    ],
)
def test_a_wrong_value_names_its_origin_and_not_itself(name, value):
    """The message leads to the option; it doesn't repeat what was given."""
    error = refused(**{name: value})
    assert error.message.startswith(f"{name} from --{name}")
    assert not value or f" {value} " not in error.message


def test_a_misspelt_variable_is_noticed(env):
    """STOCKLEDGER_TOPICS would be ignored in silence; failpoints and properties are no strangers."""
    env(TOPICS="x", FAILPOINTS="", KAFKA_CLIENT_ID="x", GROUP="g")
    assert strangers() == ["STOCKLEDGER_TOPICS is no setting; closest: STOCKLEDGER_TOPIC"]


# Secrets


DSNS = [
    f"postgresql://app:{CANARY}@db/ledger",
    f"postgresql://app@db/ledger?password={CANARY}",
    f"host=db password={CANARY} sslpassword={CANARY}",
]
UNREADABLE_DSNS = [
    f"host=db password='{CANARY} x",
    f"postgresql://app:{CANARY}@db:port/ledger?x={CANARY}",
    f"host=db passwort={CANARY}",
    CANARY,
]


@pytest.mark.parametrize("dsn", [*DSNS, *UNREADABLE_DSNS])
def test_the_dsn_never_shows_its_password(dsn):
    """Neither in rows nor in repr, whether it can be read or not."""
    settings = load({"dsn": dsn})
    assert CANARY not in "".join([repr(settings), str(settings), str(settings.rows())])


@pytest.mark.parametrize("dsn", UNREADABLE_DSNS)
def test_the_refusal_of_a_dsn_does_not_quote_it(dsn):
    """libpq's text can hold the password, so not even --debug may show it."""
    error = refused(dsn=dsn)
    assert CANARY not in repr(error)
    assert error.__cause__ is None
    assert error.__suppress_context__


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.pasword",
    ],
)
def test_kafka_secrets_are_masked(name):
    """Passwords and keys show as `****`; so does what isn't known: it may be a misspelt password."""
    settings = load(properties=[f"{name}={CANARY}", "bootstrap.servers=b:1"])
    assert shown(settings)[name] == ("****", "-X")
    assert CANARY not in repr(settings)


def test_libpq_variables_are_shown_and_masked(monkeypatch):
    """`config` shows what libpq will read besides, but not PGPASSWORD's value."""
    monkeypatch.setenv("PGHOST", "db")
    monkeypatch.setenv("PGPASSWORD", CANARY)
    rows = shown(load())
    assert rows["libpq.host"] == ("db", "PGHOST")
    assert rows["libpq.password"] == ("****", "PGPASSWORD")


# Routing


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("85123A", ("85123A",)),
        ("85123A, BANK CHARGES,茶", ("85123A", "BANK CHARGES", "茶")),
        ('["a,b", "c"]', ("a,b", "c")),
        (' ["["]', ("[",)),
    ],
)
def test_hot_goods_are_a_list(env, text, ids):
    """Ids between commas; one that holds a comma needs the JSON list. `config` shows it as it can be set."""
    env(HOT_GOODS=text, PARTITION_BY="mixed")
    settings = load()
    assert settings.hot_goods == ids
    rows = shown(settings)
    assert rows["partition_by"] == ("mixed", "STOCKLEDGER_PARTITION_BY")
    env(HOT_GOODS=rows["hot_goods"][0])
    assert load().hot_goods == ids


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"HOT_GOODS": '["a", '}, "hot_goods from STOCKLEDGER_HOT_GOODS: is no JSON list"),
        ({"HOT_GOODS": "[7]"}, "hot_goods from STOCKLEDGER_HOT_GOODS: Input should be a valid string"),
        (
            {"PARTITION_BY": "value"},
            "partition_by from STOCKLEDGER_PARTITION_BY: Input should be 'goods', 'u",
        ),
        ({"HOT_BY": "split"}, "hot_by from STOCKLEDGER_HOT_BY: Input should be 'isolate' or 'spread'"),
        ({"HOT_PARTITIONS": "0"}, "hot_partitions from STOCKLEDGER_HOT_PARTITIONS: Input should be greater"),
        ({"HOT_PARTITIONS": "many"}, "hot_partitions from STOCKLEDGER_HOT_PARTITIONS: Input should be"),
    ],
)
def test_a_routing_that_is_none_is_named(env, variables, named):
    """The variable is named before anything connects."""
    env(**variables)
    assert refused().message.startswith(named)


def test_an_option_of_routing_is_named_as_it_is_typed():
    """An option's name has dashes, a setting's underscores."""
    assert refused(partition_by="x").message.startswith("partition_by from --partition-by:")


def test_settings_of_routing_that_do_not_fit_together_are_refused(env):
    """Each by itself can be one; together they say nothing, and `config` tells."""
    env(PARTITION_BY="mixed")
    with pytest.raises(BadSettings, match="no hot goods are named"):
        load().routing()
    env(PARTITION_BY="user", HOT_GOODS="tea")
    with pytest.raises(BadSettings, match="hot_goods is given, but partition_by is user"):
        load().routing()


def test_an_option_puts_the_variables_of_hot_goods_aside(env):
    """Where the environment says mixed, `--partition-by user` alone is enough for once. With
    both on the command line it is refused as ever."""
    env(PARTITION_BY="mixed", HOT_GOODS="tea", HOT_PARTITIONS="2")
    assert load({"partition_by": "user"}).routing() == Routing.of("user", [], "isolate", None)
    assert load({"hot_goods": ["milk"]}).routing() == Routing.of("mixed", ["milk"], "isolate", 2)
    with pytest.raises(BadSettings, match="hot_goods is given, but partition_by is user"):
        load({"partition_by": "user", "hot_goods": ["tea"]}).routing()


def test_whoever_publishes_routes_by_the_settings(env):
    """`publish` and `serve` are given their publisher in one place, with all of the routing."""
    env(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1", PARTITION_BY="mixed", HOT_GOODS="tea,milk")
    env(HOT_BY="spread", HOT_PARTITIONS="3")
    settings = load()
    with publisher(settings, settings.topic) as made:
        assert made.routing == settings.routing()
    assert made.routing == Routing.of("mixed", ["tea", "milk"], "spread", 3)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("0", ("127.0.0.1", 0)),
        ("0.0.0.0:9464", ("0.0.0.0", 9464)),
        ("localhost:65535", ("localhost", 65535)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)
def test_where_a_process_is_watched(env, text, address):
    """A port alone is this machine's own."""
    env(HTTP=text)
    assert load().http_address == address


@pytest.mark.parametrize(
    "text", ["no", "65536", ":9464", "a:b:9464", "-1", "::1:9464", "host:", "9464 ", "١"]
)
def test_an_address_that_is_none_is_named(env, text):
    """With examples of good ones, and where it came from."""
    env(HTTP=text)
    with pytest.raises(BadSettings, match=r"http from STOCKLEDGER_HTTP: .* 0\.0\.0\.0:9464"):
        load()


def test_nobody_watches_by_default():
    """A port is opened for whoever asked for one."""
    assert load().http is None
