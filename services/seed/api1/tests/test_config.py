import logging

import pytest

from app.config import Config, ConfigError

BASE = {"DB_USER": "app", "DB_PASSWORD": ""}


def test_defaults_need_only_the_credentials() -> None:
    config = Config.from_env(BASE)
    assert (config.port, config.api_name) == (5000, "api1")
    database = config.database
    assert (database.host, database.port, database.name) == ("cloudsql", 3306, "telemetry")
    assert (database.pool_max, database.acquire_timeout) == (10, 2.0)
    assert config.cors_origins is None
    assert config.log_level == logging.INFO


def test_every_problem_is_told_at_once_and_no_secret() -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_env(
            {
                "DB_PASSWORD": "hunter2",
                "DB_PORT": "0",
                "PORT": "http",
                "API_NAME": "x" * 33,
                "CORS_ORIGIN": "example.com",
                "LOG_LEVEL": "loud",
                "DB_POOL_MAX": "-1",
            }
        )
    told = [problem.split()[0] for problem in caught.value.problems]
    assert told == [
        "DB_PORT",
        "DB_USER",
        "DB_POOL_MAX",
        "PORT",
        "API_NAME",
        "CORS_ORIGIN",
        "LOG_LEVEL",
    ]
    assert "hunter2" not in str(caught.value)


def test_a_missing_password_is_a_problem_an_empty_one_is_not() -> None:
    with pytest.raises(ConfigError, match="DB_PASSWORD is not set"):
        Config.from_env({"DB_USER": "app"})


def test_a_secret_keeps_its_blanks_and_stays_hidden() -> None:
    config = Config.from_env({"DB_USER": "app", "DB_PASSWORD": " s3cret "})
    assert config.database.password == " s3cret "
    assert "s3cret" not in repr(config)


def test_what_is_no_utf8_is_told() -> None:
    with pytest.raises(ConfigError, match="DB_HOST is not valid UTF-8"):
        Config.from_env(BASE | {"DB_HOST": "db\udcff"})


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        ("*", {"*"}),
        (
            "http://A.example:8080/, https://b.example",
            {"http://a.example:8080", "https://b.example"},
        ),
        (" ", None),
    ],
)
def test_cors_takes_a_star_or_a_list(given: str, origins: set[str] | None) -> None:
    assert Config.from_env(BASE | {"CORS_ORIGIN": given}).cors_origins == origins


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ("WARNING", logging.WARNING),
        ("critical", logging.ERROR),
        ("silly", logging.DEBUG),
        ("info,telemetry=debug", logging.INFO),
        ("telemetry=debug,warn", logging.WARNING),
        ("telemetry=debug", logging.ERROR),
    ],
)
def test_levels_of_other_languages_are_understood(given: str, level: int) -> None:
    assert Config.from_env(BASE | {"LOG_LEVEL": given}).log_level == level
