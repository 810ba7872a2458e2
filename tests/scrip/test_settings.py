import pytest
from pydantic import ValidationError

from scrip.settings import MISSING, VARIABLES, Settings, SettingsError, read_settings

APP = "postgresql://scrip_app:hush@db/scrip"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", APP)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://scrip:hush@nats")
    monkeypatch.setenv("SCRIP_WRITER_BATCH_MAX", "7")
    settings = read_settings()
    assert settings.database_url.get_secret_value() == APP
    assert settings.writer_batch_max == 7
    assert settings.writer_queue_max == 10_000


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://scrip:hush@nats")
    monkeypatch.setenv("DATABASE_OWNER_URL", "postgresql://scrip_owner:hush@db/scrip")
    settings = read_settings()
    for shown in (repr(settings), str(settings), str(settings.model_dump()), repr([settings])):
        assert "hush" not in shown


def test_no_complaint_shows_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRIP_HTTP_PORT", "hush")
    with pytest.raises(
        SettingsError, match="SCRIP_HTTP_PORT: Input should be a valid integer"
    ) as e:
        read_settings()
    assert "hush" not in str(e.value)


@pytest.mark.parametrize("keys", ["", "hush", "k:hush", f"k:{'A' * 43}=,k:hush"])
def test_keys_for_secrets_that_are_none_are_an_error(
    monkeypatch: pytest.MonkeyPatch, keys: str
) -> None:
    monkeypatch.setenv("SCRIP_SECRETS_KEYS", keys)
    with pytest.raises(SettingsError, match=r"SCRIP_SECRETS_KEYS: .*keyid:base64") as error:
        read_settings()
    assert "hush" not in str(error.value)
    monkeypatch.setenv("SCRIP_SECRETS_KEYS", f"k:{'A' * 43}=")
    assert "AAAA" not in repr(read_settings())


def test_an_unknown_setting_is_an_error_that_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCRIP_WRITER_BATCHMAX", "7")
    with pytest.raises(SettingsError) as error:
        read_settings()
    expected = "SCRIP_WRITER_BATCHMAX: no such setting; did you mean SCRIP_WRITER_BATCH_MAX?"
    assert str(error.value) == expected


def test_every_complaint_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("SCRIP_HTTP_PORT", "65536")
    monkeypatch.setenv("SCRIP_XYZZY", "1")
    with pytest.raises(SettingsError) as error:
        read_settings()
    assert str(error.value).splitlines() == [
        "SCRIP_XYZZY: no such setting",
        f"DATABASE_URL: {MISSING}",
        "SCRIP_HTTP_PORT: Input should be less than or equal to 65535",
    ]


def test_a_lock_is_not_waited_for_longer_than_its_statement_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCRIP_LOCK_TIMEOUT_MS", "5001")
    with pytest.raises(SettingsError, match="must not be above SCRIP_STATEMENT_TIMEOUT_MS"):
        read_settings()


def test_settings_are_frozen() -> None:
    settings = read_settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.http_port = 1


def test_settings_can_be_given_by_name_in_a_program() -> None:
    settings = Settings(database_url="postgresql://other", http_port=1)
    assert settings.database_url.get_secret_value() == "postgresql://other"


@pytest.mark.parametrize("url", ["", "garbage", "http://127.0.0.1:5432/scrip"])
def test_an_address_of_anything_else_is_no_database(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    with pytest.raises(SettingsError, match=r"DATABASE_URL: .*postgresql://") as error:
        read_settings()
    assert not url or url not in str(error.value)
