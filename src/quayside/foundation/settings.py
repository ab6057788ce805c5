"""Every setting of the platform, read from the environment or a ``.env`` and validated once.

The environment wins over ``.env`` (the project's, or the file that QUAYSIDE_ENV_FILE names), which wins over the
default. Secrets are `SecretStr`, so that no log, traceback or ``repr`` shows them. `origin` says where a value came from;
``quayside doctor`` prints it. Nothing here opens anything.
"""

from __future__ import annotations

import os
from functools import cache, lru_cache
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from quayside.foundation.errors import SettingsError


@cache
def project_root() -> Path:
    """The checkout this package is installed from in editable mode, else the current directory."""
    checkout = Path(__file__).resolve().parents[3]
    return checkout if (checkout / "workspace.yaml").is_file() else Path.cwd()


class Settings(BaseSettings):
    """The settings table. Field order is the order in which ``quayside doctor`` prints them."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        case_sensitive=True,
        env_ignore_empty=True,
    )

    #: What a person corrects when the server at `database_url` refuses.
    database_variable: ClassVar[str] = "QUAYSIDE_DATABASE_URL"

    home: Path = Field(Path(".quayside"), validation_alias="QUAYSIDE_HOME")
    database_url: SecretStr | None = Field(None, validation_alias="QUAYSIDE_DATABASE_URL")
    dagster_postgres_user: str | None = Field(None, validation_alias="DAGSTER_POSTGRES_USER")
    dagster_postgres_password: SecretStr | None = Field(None, validation_alias="DAGSTER_POSTGRES_PASSWORD")
    dagster_postgres_host: str | None = Field(None, validation_alias="DAGSTER_POSTGRES_HOST")
    dagster_postgres_port: int = Field(5432, validation_alias="DAGSTER_POSTGRES_PORT", ge=1, le=65535)
    dagster_postgres_db: str | None = Field(None, validation_alias="DAGSTER_POSTGRES_DB")
    lakebase_host: str | None = Field(None, validation_alias="LAKEBASE_HOST")
    lakebase_port: int = Field(5432, validation_alias="LAKEBASE_PORT", ge=1, le=65535)
    lakebase_database: str = Field("dataloader", validation_alias="LAKEBASE_DATABASE")
    lakebase_user: str | None = Field(None, validation_alias="LAKEBASE_USER")
    lakebase_password: SecretStr | None = Field(None, validation_alias="LAKEBASE_PASSWORD")
    lake_url: str | None = Field(None, validation_alias="QUAYSIDE_LAKE_URL")
    delta_url: str | None = Field(None, validation_alias="QUAYSIDE_DELTA_URL")
    objects_url: str | None = Field(None, validation_alias="QUAYSIDE_OBJECTS_URL")
    graphs_folder: Path | None = Field(None, validation_alias="QUAYSIDE_GRAPHS_FOLDER")
    api_key_secret: str | None = Field(None, validation_alias="QUAYSIDE_API_KEY_SECRET")
    dagster_home: Path | None = Field(None, validation_alias="DAGSTER_HOME")
    dagster_webserver_url: str = Field("http://localhost:3000", validation_alias="DAGSTER_WEBSERVER_URL")
    dagster_environment: Literal["npd", "prod"] | None = Field(None, validation_alias="DAGSTER_ENVIRONMENT")
    batch_id: str | None = Field(None, validation_alias="BATCH_ID")
    daily_batch_id: str | None = Field(None, validation_alias="DAILY_BATCH_ID")
    kycc_second_person: bool = Field(False, validation_alias="QUAYSIDE_KYCC_SECOND_PERSON")
    billing_schedules_enabled: bool = Field(False, validation_alias="BILLING_SCHEDULES_ENABLED")
    databricks_cluster_id: str | None = Field(None, validation_alias="DATABRICKS_CLUSTER_ID")
    databricks_workspace_url: str | None = Field(None, validation_alias="DATABRICKS_WORKSPACE_URL")
    dataloader_sensor_batch_size: int = Field(10, validation_alias="DATALOADER_SENSOR_BATCH_SIZE", ge=1)
    dataloader_tables_per_run: int = Field(1, validation_alias="DATALOADER_TABLES_PER_RUN", ge=1)
    dataloader_incremental_lookback_hours: int = Field(
        12, validation_alias="DATALOADER_INCREMENTAL_LOOKBACK_HOURS", ge=0
    )
    dataloader_delete_check_hours: int = Field(24, validation_alias="DATALOADER_DELETE_CHECK_HOURS", ge=0)
    dataloader_delete_minimum_share: float = Field(
        0.5, validation_alias="DATALOADER_DELETE_MINIMUM_SHARE", ge=0, le=1
    )
    dataloader_lease_seconds: int = Field(120, validation_alias="DATALOADER_LEASE_SECONDS", ge=1)
    dataloader_stall_seconds: int = Field(3600, validation_alias="DATALOADER_STALL_SECONDS", ge=1)
    dataloader_row_cap: int | None = Field(None, validation_alias="QUAYSIDE_DATALOADER_ROW_CAP", ge=1)
    dataloader_rows_per_chunk: int = Field(5_000_000, validation_alias="DATALOADER_ROWS_PER_CHUNK", ge=1)
    dbt_profiles_dir: Path | None = Field(None, validation_alias="DBT_PROFILES_DIR")
    feast_repo_path: Path = Field(Path("feature_repo"), validation_alias="FEAST_REPO_PATH")
    redis_host: str | None = Field(None, validation_alias="REDIS_HOST")
    redis_port: int = Field(6379, validation_alias="REDIS_PORT", ge=1, le=65535)
    redis_db: int = Field(0, validation_alias="REDIS_DB", ge=0)
    redis_password: SecretStr | None = Field(None, validation_alias="REDIS_PASSWORD")
    slack_webhook_url: SecretStr | None = Field(None, validation_alias="SLACK_WEBHOOK_URL")
    slack_bot_token: SecretStr | None = Field(None, validation_alias="SLACK_BOT_TOKEN")
    slack_default_channel: str = Field("#alerts", validation_alias="SLACK_DEFAULT_CHANNEL")
    feature_flags_google_sheet_url: str | None = Field(
        None, validation_alias="FEATURE_FLAGS_GOOGLE_SHEET_URL"
    )
    feature_flags_google_sheet_credentials_json: SecretStr | None = Field(
        None, validation_alias="FEATURE_FLAGS_GOOGLE_SHEET_CREDENTIALS_JSON"
    )
    api_key: SecretStr | None = Field(None, validation_alias="API_KEY")
    aws_endpoint_url: str | None = Field(None, validation_alias="AWS_ENDPOINT_URL")
    aws_region: str | None = Field(None, validation_alias="AWS_REGION")
    aws_access_key_id: str | None = Field(None, validation_alias="AWS_ACCESS_KEY_ID")
    aws_secret_access_key: SecretStr | None = Field(None, validation_alias="AWS_SECRET_ACCESS_KEY")
    aws_session_token: SecretStr | None = Field(None, validation_alias="AWS_SESSION_TOKEN")
    log_format: Literal["text", "json"] = Field("text", validation_alias="QUAYSIDE_LOG_FORMAT")
    threads: int | None = Field(None, validation_alias="QUAYSIDE_THREADS", ge=1)
    memory_limit: str | None = Field(
        None, validation_alias="QUAYSIDE_MEMORY_LIMIT", pattern=r"^\d+(\.\d+)?\s*[KMGT]i?B$"
    )

    @field_validator("home", "dagster_home", "dbt_profiles_dir", "feast_repo_path", "graphs_folder")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else Path(os.path.normpath(project_root() / value.expanduser()))

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must start with postgresql://")
        return value

    @field_validator("lake_url", "delta_url", "objects_url")
    @classmethod
    def _lake_scheme(cls, value: str | None) -> str | None:
        if value is not None and "://" in value and not value.startswith(("file://", "s3://")):
            raise ValueError("must be a folder, file:///folder or s3://bucket/prefix")
        return value

    @property
    def dagster_home_path(self) -> Path:
        """DAGSTER_HOME, by default a folder in QUAYSIDE_HOME."""
        return self.dagster_home or self.home / "dagster"

    @property
    def lake_data_path(self) -> str:
        """Where the lake's Parquet files are: an absolute folder or an ``s3://`` prefix, without trailing slash."""
        return self._data_path(self.lake_url, "lake")

    @property
    def delta_data_path(self) -> str:
        """Where DataLoader's Delta tables are: an absolute folder or an ``s3://`` prefix, without trailing slash."""
        return self._data_path(self.delta_url, "delta")

    @property
    def objects_path(self) -> str:
        """Where RoboSystems keeps files (reports, backups): an absolute folder or an ``s3://`` prefix."""
        return self._data_path(self.objects_url, "objects")

    @property
    def graphs_path(self) -> Path:
        """The folder of graph databases, by default in QUAYSIDE_HOME."""
        return self.graphs_folder or self.home / "graphs"

    def _data_path(self, url: str | None, default: str) -> str:
        if url is None:
            return str(self.home / default)
        if url.startswith("s3://"):
            return url.rstrip("/")
        return os.path.normpath(project_root() / Path(url.removeprefix("file://")).expanduser())

    @classmethod
    def variables(cls) -> dict[str, str]:
        """Field name → environment variable."""
        return {name: str(field.validation_alias) for name, field in cls.model_fields.items()}

    def origin(self, field: str) -> Literal["environment", ".env", "default"]:
        """Where the value of one field came from."""
        variable = self.variables()[field]
        if os.environ.get(variable):
            return "environment"
        return ".env" if field in self.model_fields_set else "default"


def load_settings() -> Settings:
    """Read and validate the settings. What neither the environment nor ``.env`` has changed since is not read anew.

    Raises:
        SettingsError: one sentence naming every variable that is wrong, and never a secret's value.
    """
    env_file = os.environ.get("QUAYSIDE_ENV_FILE") or str(project_root() / ".env")
    try:
        found = Path(env_file).stat()
        version = (found.st_mtime_ns, found.st_size, found.st_ino)
    except OSError:
        version = None
    return _read(env_file, version, project_root(), tuple(map(os.environ.get, _read_from())))


@cache
def _read_from() -> tuple[str, ...]:
    """The variables that settings depend on. A path may begin with ``~``: hence HOME."""
    return ("HOME", *Settings.variables().values())


@lru_cache(maxsize=1)
def _read(
    env_file: str, version: tuple[int, ...] | None, root: Path, values: tuple[str | None, ...]
) -> Settings:
    """The settings in `env_file` as of `version`, below `values` of the environment, with paths from `root` on.

    Validating takes 10 to 20 ms of processor time, more than some steps that want to know one setting; hence the memory.
    """
    try:
        return Settings(_env_file=env_file)  # pyright: ignore[reportCallIssue]
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc']))} {e['msg'].removeprefix('Value error, ')}" for e in error.errors()
        )
        raise SettingsError(
            f"Settings are not usable: {wrong}. Correct the variable in the environment or in .env."
        ) from None
