"""The settings, each with the place it came from: command line, then environment, then default.

Read once, here and nowhere else (failpoints aside). Nothing in this module connects. A secret leaves it only
inside `conninfo` and `kafka_properties`; rows, errors and `repr` show `****`.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    StringConstraints,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ledger.domain.commands import KeyPart
from ledger.errors import BadSettings, concealed
from ledger.shell import command
from producer.librdkafka import SECRET, closest, dotted, is_secret, known, refusal
from producer.partition_by import PARTITIONS_MAX, HotBy, PartitionBy
from producer.routing import Routing

PREFIX = "STOCKLEDGER_"
KAFKA_PREFIX = f"{PREFIX}KAFKA_"
NOT_SETTINGS = (f"{PREFIX}FAILPOINTS", f"{PREFIX}TEST_")
DEFAULT = "default"
LOOPBACK = "127.0.0.1"
PORT_MAX = 65_535
BOOTSTRAP = "bootstrap.servers"
ELSEWHERE = {"group.id": f"--group or {PREFIX}GROUP"}
"""Properties that another setting owns."""


def _topics(text: str) -> str:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not re.fullmatch("[a-zA-Z0-9._-]{1,249}", name) or name in (".", ".."):
            which = f"{name[:249]!r} " if len(names) > 1 else ""
            raise ValueError(f"{which}must be 1 to 249 of the characters a-z A-Z 0-9 . _ -")
        if names.count(name) > 1:
            raise ValueError(f"{name} is named twice")
    return ",".join(names)


def _list(given: object) -> object:
    """The ids of a variable: a JSON list, because an id may hold commas, or a list with commas between."""
    if not isinstance(given, str):
        return given
    if not given.lstrip().startswith("["):
        return [part.strip() for part in given.split(",")]
    try:
        return json.loads(given)
    except ValueError:
        raise ValueError('is no JSON list, which looks like ["85123A", "22423"]') from None


def _http(text: str) -> str:
    host, _, port = text.rpartition(":")
    named = re.fullmatch(r"\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9._-]+", host)
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > PORT_MAX or not (named or ":" not in text):
        raise ValueError(f"{text[:100]!r} is no address like 9464, 0.0.0.0:9464 or [::1]:9464")
    return text


Topics = Annotated[str, AfterValidator(_topics)]
GoodsList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_list)]
Installation = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Group = Annotated[str, StringConstraints(min_length=1, max_length=249)]


class ShownSetting(NamedTuple):
    """A setting as people may see it."""

    name: str
    value: str
    origin: str


class Environment(EnvSettingsSource):
    """`STOCKLEDGER_<NAME>`, and a whole family of variables for the one setting `kafka`."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        if field_name != "kafka":
            return super().get_field_value(field, field_name)
        prefix = KAFKA_PREFIX.lower()
        found = {dotted(n.removeprefix(prefix)): v for n, v in self.env_vars.items() if n.startswith(prefix)}
        return found or None, field_name, False

    def prepare_field_value(
        self, field_name: str, field: FieldInfo, value: Any, value_is_complex: bool
    ) -> Any:
        if field_name == "kafka":
            return value
        return super().prepare_field_value(field_name, field, value, value_is_complex)


class Settings(BaseSettings):
    """What every verb is given, as one value. Made by `load`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )
    dsn: SecretStr = Field(
        SecretStr(""),
        description="Postgres, as a URL or as `host=... dbname=...`; else libpq's own `PG*` variables",
    )
    topic: Topics = Field(
        "purchase-commands",
        description="the command topic: 1 to 249 of `a-z A-Z 0-9 . _ -`; several with a comma between them",
    )
    group: Group = Field(
        "stockledger", description="the consumer group: 1 to 249 characters; a ledger has one"
    )
    source: KeyPart | None = Field(
        None, description="who sends: the `source` of lines that name none, 1 to 128 visible ASCII characters"
    )
    partition_by: PartitionBy = Field(
        PartitionBy.GOODS, description="whose commands stay in order on one lane: `goods`, `user` or `mixed`"
    )
    hot_goods: GoodsList = Field(
        (),
        description="of `mixed`, the goods that are hot, hottest first: a JSON list, or ids between commas",
    )
    hot_by: HotBy = Field(
        HotBy.ISOLATE,
        description="of `mixed`: `isolate` gives hot goods their own partitions, `spread` several, by user",
    )
    hot_partitions: int | None = Field(
        None,
        ge=1,
        le=PARTITIONS_MAX,
        description="of `mixed`: how many for all of `isolate` (1), for each of `spread` (all)",
    )
    http: Annotated[str, AfterValidator(_http)] | None = Field(
        None,
        description="where `run`, `project`, `relay` and `cache` say how they stand: `9464` (loopback) "
        "or `HOST:9464`",
    )
    tokens: Path | None = Field(
        None, description="the file of `serve`'s bearer tokens; without one it serves this machine alone"
    )
    environment: Installation | None = Field(
        None,
        description="what this installation is called, on the dashboard's pages; `production` stands out",
    )
    codec: Literal["python", "native"] | None = Field(
        None,
        description="what reads records and writes rows: `native` if it is installed, else `python`",
    )
    kafka: Annotated[dict[str, str], NoDecode] = Field(
        {}, description="any property of librdkafka, with underscores for dots in a variable"
    )
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """First what `load` was given, then the environment; no files."""
        return init_settings, Environment(settings_cls)

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return [(row.name, row.value) for row in self.rows()]

    def origin(self, name: str) -> str:
        """Where a setting, or a Kafka property, came from."""
        return self._origins.get(name, DEFAULT)

    @property
    def topics(self) -> tuple[str, ...]:
        """The names of the command topics, at least one."""
        return tuple(self.topic.split(","))

    def only_topic(self, verb: str, *given: object) -> str:
        """The one topic that `verb`, with what it was given, is about. Raises BadSettings for several."""
        if len(self.topics) > 1:
            raise BadSettings(
                f"{self.origin('topic')} names {len(self.topics)} topics ({', '.join(self.topics)}), "
                "and this is about one of them",
                remedy=command(f"{verb} --topic {quote(self.topics[0])}", *given),
            )
        return self.topic

    @property
    def http_address(self) -> tuple[str, int]:
        """Host and port of `http`, which must be set; loopback where no host is named. Port 0: any."""
        host, _, port = (self.http or "").rpartition(":")
        return host.strip("[]") or LOOPBACK, int(port)

    def conninfo(self) -> str:
        """The DSN; empty leaves everything to libpq's `PG*`. Raises BadSettings, which doesn't quote it."""
        from ledger.store.connection.dsn import options

        dsn = self.dsn.get_secret_value()
        options(dsn, self.origin("dsn"))
        return dsn

    @property
    def names_database(self) -> bool:
        """Whether a database is named at all, here or by libpq's own variables."""
        return bool(self.dsn.get_secret_value() or _libpq_rows())

    def kafka_properties(self) -> dict[str, str]:
        """The properties for any Kafka client, each judged by librdkafka.

        Raises BadSettings naming the wrong one, where it came from and the closest known name.
        """
        for name, value in self.kafka.items():
            _require_property(name, value, self.origin(name))
        if not self.kafka.keys() & {BOOTSTRAP, "metadata.broker.list"}:
            raise BadSettings(
                "no broker is named",
                remedy=f"export {KAFKA_PREFIX}BOOTSTRAP_SERVERS=127.0.0.1:9092",
            )
        return dict(self.kafka)

    def routing(self) -> Routing:
        """How commands are routed. Raises BadSettings where the settings of it don't fit together."""
        return Routing.of(self.partition_by, self.hot_goods, self.hot_by, self.hot_partitions)

    def rows(self) -> list[ShownSetting]:
        """Every setting with its origin, fit to be shown: secrets are masked."""
        named = [
            ShownSetting(name, str(getattr(self, name) or "-"), self.origin(name))
            for name in ("topic", "group", "source", "partition_by", "http", "tokens", "environment", "codec")
        ]
        if self.hot_goods:
            hot = json.dumps(self.hot_goods, ensure_ascii=False), self.hot_by, self.hot_partitions or "-"
            names = ("hot_goods", "hot_by", "hot_partitions")
            named += [
                ShownSetting(name, str(value), self.origin(name))
                for name, value in zip(names, hot, strict=True)
            ]
        properties = [
            ShownSetting(name, self._shown(name), self.origin(name))
            for name in sorted({BOOTSTRAP, *self.kafka})
        ]
        return [
            ShownSetting("dsn", _masked(self.dsn.get_secret_value()), self.origin("dsn")),
            *_libpq_rows(),
            *named,
            *properties,
        ]

    def _shown(self, name: str) -> str:
        # What isn't known may be a misspelt password.
        secret = is_secret(name) or (known() and name not in known())
        return SECRET if secret else concealed(self.kafka.get(name, "-"))


def load(options: Mapping[str, object] | None = None, properties: Sequence[str] = ()) -> Settings:
    """The settings of this process: `options` by field name (None: not given), `properties` as `name=value`.

    Whoever asks for another routing than `mixed` means no list of hot goods that the environment holds.
    Raises BadSettings naming the setting and its origin, never its value.
    """
    given: dict[str, Any] = {name: value for name, value in (options or {}).items() if value is not None}
    overrides = dict(_split(text) for text in properties)
    origins = _origins() | {name: _option(name) for name in given} | dict.fromkeys(overrides, "-X")
    if given.get("partition_by", PartitionBy.MIXED) != PartitionBy.MIXED:
        given = {"hot_goods": (), "hot_partitions": None} | given
    try:
        settings = Settings(kafka=overrides, **given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(first["loc"][0])
        raise BadSettings(
            f"{name} from {origins.get(name, DEFAULT)}: {first['msg'].removeprefix('Value error, ')}",
            remedy="stockledger config",
        ) from None
    settings._origins.update(origins)
    return settings


def strangers() -> list[str]:
    """Variables that look like settings and aren't, with what they may be meant to be."""
    fields = {PREFIX + name.upper() for name in Settings.model_fields} - {KAFKA_PREFIX.rstrip("_")}
    found = []
    for name in os.environ:
        if name.upper() in fields or not name.startswith(PREFIX):
            continue
        if not name.startswith((KAFKA_PREFIX, *NOT_SETTINGS)):
            near = get_close_matches(name, fields, 1)
            found.append(f"{name} is no setting" + (f"; closest: {near[0]}" if near else ""))
    return found


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _split(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        raise BadSettings("-X takes name=value", remedy="for example -X socket.timeout.ms=5000")
    return name.strip(), value


def _origins() -> dict[str, str]:
    found = {}
    for name, value in os.environ.items():
        lower = name.lower()
        if value and lower.startswith(KAFKA_PREFIX.lower()):
            found[dotted(lower.removeprefix(KAFKA_PREFIX.lower()))] = name
        elif value and lower.startswith(PREFIX.lower()):
            found[lower.removeprefix(PREFIX.lower())] = name
    return found


def _require_property(name: str, value: str, origin: str) -> None:
    if name in ELSEWHERE:
        raise BadSettings(f"{name} from {origin} is set elsewhere", remedy=f"use {ELSEWHERE[name]}")
    if known() and name not in known():
        near = closest(name)
        raise BadSettings(
            f"unknown Kafka property {name} from {origin}" + (f"; closest: {near}" if near else ""),
            remedy=f"write {near}" if near else "stockledger config",
        )
    if why := refusal(name, value):
        raise BadSettings(f"Kafka property {name} from {origin}: {why}", remedy="stockledger config")


def _masked(dsn: str) -> str:
    from ledger.store.connection.dsn import options

    try:
        parts = options(dsn)
    except BadSettings:
        return SECRET
    return " ".join(f"{keyword}={SECRET if secret else value}" for keyword, value, secret in parts) or "-"


def _libpq_rows() -> list[ShownSetting]:
    """The variables that libpq itself reads and that are set."""
    from psycopg import pq

    rows = []
    for option in pq.Conninfo.get_defaults():
        name = (option.envvar or b"").decode()
        if value := os.environ.get(name):
            rows.append(
                ShownSetting(
                    f"libpq.{option.keyword.decode()}", SECRET if option.dispchar == b"*" else value, name
                )
            )
    return rows
